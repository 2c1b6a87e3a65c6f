"""How long does a person wait for a command? Cold processes in turns, each with its peak memory.

`python benchmarks/cold.py startup`: help, validate and plan of the quickstart, against a bare `import click`.
`python benchmarks/cold.py plan [--snakemake PATH]`: a plan of up to 10,000 finished configurations, against a dry run
of Snakemake over as many jobs that are up to date. `python benchmarks/cold.py noop`: a second apply, against its plan.
`python benchmarks/cold.py report`: the figures of a report of up to 1,000 finished configurations, against their plan.
`python benchmarks/cold.py state`: `lora state verify`, `gc` and `list` of as many, against `sha256sum` of their files.

Each prints a table and writes `benchmarks/results/DATE-cold-NAME.json`. Nothing is trained: finished.py makes the
states, in a process of its own, because a command's peak memory counts that of the process that starts it.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = (100, 250, 500, 1_000, 10_000)  # configurations
USUAL = [100, 1_000, 10_000]
QUICKSTART = HERE.parent / "examples" / "quickstart" / "study.toml"
CLICK = [sys.executable, "-P", "-c", "import click"]
LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
# A study's nodes as files: what each is made from.
RULES = {
    "train": "",
    "predict_validation": "train",
    "predict_test": "train",
    "score_validation": "predict_validation",
    "score_test": "predict_test",
    "profile": "",
}
Commands = dict[str, list[str]]
Rows = dict[str, dict[str, Any]]


def once(command: list[str], where: Path) -> dict[str, float]:
    """Run a command to its end; return its seconds on the clock and of processor time, and its peak memory in MB."""
    # Compiled modules are kept, as an installation has them, whatever is usual where this runs.
    there = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=where, env=there, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{told.decode()}")
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}


def measured(commands: Commands, base: str, turns: int, where: Path) -> Rows:
    """Return medians of each command, all of them in turns, after one turn that is not counted.

    :param base: the command that the others are compared with; a ratio is of one turn
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for turn in range(turns + 1):
        for name, command in commands.items():
            one = once(command, where)
            if turn:
                found[name].append(one)
    rows: Rows = {}
    for name, runs in found.items():
        rows[name] = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
        for part in ("seconds", "cpu_seconds"):
            ratios = [run[part] / other[part] for run, other in zip(runs, found[base], strict=True)]
            rows[name][f"{part}_to_{base.replace(' ', '_')}"] = statistics.median(ratios)
    return rows


def finish(spec: Path | int, state: Path, *how: str) -> tuple[Path, int]:
    """Make the finished state of a spec, or of so many configurations; return the spec and how many nodes it has."""
    command = [sys.executable, "-P", str(HERE / "finished.py"), str(spec), str(state), *how]
    file, nodes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return Path(file), int(nodes)


def show(title: str, rows: Rows) -> None:
    """Print a row for each command."""
    print(f"{title:34} {'seconds':>8} {'ratio':>6} {'of CPU':>8} {'ratio':>6} {'peak':>8}")
    for name, row in rows.items():
        seconds, cpu, peak, ratio, cpu_ratio = row.values()
        print(f"{name:34} {seconds:8.3f} {ratio:6.2f} {cpu:8.3f} {cpu_ratio:6.2f} {peak:5.0f} MB")


def startup(options: argparse.Namespace, where: Path) -> dict[str, Rows]:
    """Measure the commands of a person who is writing a spec; of a study that is not begun, and of a finished one."""
    spec = where / "study.toml"
    shutil.copy(QUICKSTART, spec)
    finish(spec, where / "finished")
    plan = [*LORA, "plan", str(spec), "--state"]
    commands = {
        "import click": CLICK,
        "lora --help": [*LORA, "--help"],
        "lora validate": [*LORA, "validate", str(spec)],
    }
    commands |= {"lora plan": [*plan, str(where / "none")], "lora plan, all finished": [*plan, str(where / "finished")]}
    rows = measured(commands, "import click", options.turns or 9, where)
    show("quickstart", rows)
    return {"quickstart": rows}


def plan(options: argparse.Namespace, where: Path) -> dict[str, Rows]:
    """Measure plans of finished studies, and Snakemake's of as many finished jobs."""
    found = {}
    for count in options.sizes:
        state = where / f"{count}"
        spec, nodes = finish(count, state)
        commands = {"lora plan": [*LORA, "plan", str(spec), "--state", str(state)]}
        if options.snakemake:
            jobs = where / f"jobs-{count}"
            make_jobs(count, jobs)
            commands["snakemake -n"] = [options.snakemake, "-n", "--quiet", "-s", f"{jobs}/Snakefile", "-d", str(jobs)]
        turns = options.turns or (3 if count > 1000 else 5)
        title = f"{count:,} configurations, {nodes:,} nodes"
        found[title] = measured(commands, "lora plan", turns, where)
        show(title, found[title])
        print(f"{'':34} {1e6 * found[title]['lora plan']['seconds'] / nodes:8.1f} µs for each node")
    return found


def state(options: argparse.Namespace, where: Path) -> dict[str, Rows]:
    """Measure commands on finished states with files of real sizes, beside `sha256sum` of all of them."""
    found = {}
    for count in options.sizes:
        directory = where / f"{count}"
        spec, nodes = finish(count, directory, "whole")
        objects = str(directory / "objects")
        files = [file.stat().st_size for file in (directory / "objects").glob("*/*")]
        here = ["--state", str(directory)]
        commands = {
            "sha256sum": ["sh", "-c", f"find {shlex.quote(objects)} -type f -print0 | xargs -0 sha256sum"],
            "lora state verify": [*LORA, "state", "verify", *here],
            "lora state gc": [*LORA, "state", "gc", *here],
            "lora state gc SPEC": [*LORA, "state", "gc", str(spec), *here],
            "lora state list": [*LORA, "state", "list", *here],
        }
        title = f"{count:,} runs, {nodes:,} nodes, {len(files):,} files of {sum(files) / 1e9:.2f} GB"
        found[title] = measured(commands, "sha256sum", options.turns or 3, where)
        show(title, found[title])
        shutil.rmtree(directory)
    return found


def report(options: argparse.Namespace, where: Path) -> dict[str, Rows]:
    """Measure `lora report --json` of finished studies, every analysis and no picture, against their plan."""
    found = {}
    for count in options.sizes:
        if count > 1_000:
            continue  # every two of 10,000 do not fit into memory
        spec, nodes = finish(count, where / f"{count}", "judged")
        about = [str(spec), "--state", str(where / f"{count}")]
        commands = {"lora plan": [*LORA, "plan", *about], "lora report --json": [*LORA, "report", *about, "--json"]}
        title = f"{count:,} configurations, {nodes:,} nodes"
        found[title] = measured(commands, "lora plan", options.turns or 3, where)
        show(title, found[title])
    return found


def noop(options: argparse.Namespace, where: Path) -> dict[str, Rows]:
    """Measure an apply of what is finished, and the plan that says so."""
    spec = where / "study.toml"
    shutil.copy(QUICKSTART, spec)
    found = {}
    for name, of in {"quickstart": spec, "1,000 configurations": 1000}.items():
        state = where / f"{of if isinstance(of, int) else of.stem}"
        file, _ = finish(of, state)
        about = [str(file), "--state", str(state)]
        commands = {"lora plan": [*LORA, "plan", *about], "lora apply": [*LORA, "apply", *about, "--yes"]}
        found[name] = measured(commands, "lora plan", options.turns or 7, where)
        show(name, found[name])
    return found


def make_jobs(count: int, where: Path) -> None:
    """Write a Snakefile with a job for each node, and their files, each newer than what it is made from."""
    ends = [rule for rule in RULES if rule not in RULES.values()]
    wanted = ", ".join(f'expand("{rule}/{{i}}", i=range({count}))' for rule in ends)
    lines = [f"rule all:\n    input: {wanted}\n"]
    then = time.time() - 1000
    for number, (rule, source) in enumerate(RULES.items()):
        (where / rule).mkdir(parents=True)
        reads = f'    input: "{source}/{{i}}"\n' if source else ""
        lines.append(f'rule {rule}:\n{reads}    output: "{rule}/{{i}}"\n    shell: "touch {{output}}"\n')
        for job in range(count):
            file = where / rule / str(job)
            file.touch()
            os.utime(file, (then + number, then + number))
    (where / "Snakefile").write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("startup", "plan", "report", "noop", "state"))
    parser.add_argument(
        "--snakemake", help="The snakemake to compare with: pip install snakemake, in a place of its own."
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", choices=SIZES, default=[100, 1_000, 10_000], help="Configurations."
    )
    parser.add_argument("--turns", type=int, help="How often each command is run.")
    options = parser.parse_args()
    about: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "python": platform.python_version()}
    about |= {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    about |= {"lorafile": version("lorafile"), "turns": options.turns or "by size"}
    if options.snakemake:
        told = subprocess.run([options.snakemake, "--version"], capture_output=True, text=True, check=True)
        about |= {"snakemake": told.stdout.strip()}
    measures = {"startup": startup, "plan": plan, "report": report, "noop": noop, "state": state}
    with tempfile.TemporaryDirectory() as directory:
        rows = measures[options.what](options, Path(directory))
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    file = out / f"{about['date']}-cold-{options.what}.json"
    file.write_text(json.dumps({**about, "medians": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
