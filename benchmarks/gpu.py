"""One check on a GPU: tests, training, generation, forecasts against measured memory, and three configurations.

`benchmarks/gpu.sh` runs it, on a machine without a network. Each part is a process of its own with a time limit
(gpu_parts.py); what it found is written at once, so that a run that is cut short keeps what it had, and the next part
goes on after one that failed. `--cpu` does the same in small, to see that all of it runs: its figures say nothing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lorafile.environment import environment, installed
from lorafile.files.atomic import write_text

HERE = Path(__file__).resolve().parent
SECONDS = 480.0  # of all parts
_SLOWER = 3  # so many times longer may parts take on a processor, which others may use as well
_GRACE = 10.0  # seconds that an interrupted part has to end
_SAID = 3000  # characters that are kept of what a failed part said


@dataclass(frozen=True)
class Part:
    """A part of the check.

    :ivar limit: seconds after which it is ended
    """

    name: str
    limit: float


# In order of value. What each is likely to take on an H200, in seconds, before anybody has measured it: a process
# takes 10 to start; a step takes tokens · 4 · parameters / 40 % of 989 TFLOP/s, or 5 ms for each block where launches
# decide; a base of 8 B is drawn in 5. In all 335 of 480.
PARTS = (
    Part("train 1B", 70),  # 30: 5 × 11 steps of 0.1 to 0.25
    Part("train 8B", 110),  # 50: 2 × 6 steps of 0.7, 4 of 4 (K = 4, activations computed again), the base
    Part("tests", 120),  # 50
    Part("train 8B nf4", 80),  # 35: 2 × 11 steps of 0.3, 7 of 1, the base quantized
    Part("generate 1B", 60),  # 25: 2 × 2 × 128 tokens of 0.02, a process
    Part("quickstart", 100),  # 40: 9 runs, 3 profiles, each in a process
    Part("trainers 1B nf4", 120),  # 80: 4 runs, two of them by a program that takes 20 to start
    Part("train 3B", 60),  # 25
)


GIB = 2**30
SHOWN = (  # what of a row is printed, as what, and in which unit
    ("tokens_per_second", "{:,.0f} tokens/s", 1),
    ("share_of_peak", "{:.1f} % of peak", 0.01),
    ("ratio_to_peft", "{:.2f} x PEFT", 1),
    ("ratio_to_one", "{:.2f} x K=1", 1),
    ("allocated_bytes", "{:.4g} GiB allocated", GIB),
    ("reserved_bytes", "{:.4g} reserved", GIB),
    ("forecast_over_measured", "forecast {:.2f} of it", 1),
    ("seconds", "{:.1f} s", 1),
)
COUNTS = ("equal_answers", "answers", "nodes", "outcomes", "devices", "passed", "failed", "skipped")


class Results:
    """What was found so far, and the file that holds it."""

    def __init__(self, file: Path, head: dict[str, Any], keep: bool) -> None:
        self.file, self.head = file, head
        before = json.loads(file.read_text(encoding="utf-8"))["parts"] if keep and file.is_file() else {}
        self.parts: dict[str, dict[str, Any]] = before

    def write(self) -> None:
        """Write all of it, whole or not at all."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.file, json.dumps({**self.head, "parts": self.parts}, indent=1) + "\n")


def run(part: Part, cpu: bool, limit: float, results: Results, directory: Path) -> None:
    """Do a part in a process of its own, and write each row as it comes."""
    told, log = directory / f"{part.name}.jsonl", directory / f"{part.name}.log"
    options = ["--cpu"] if cpu else []
    command = [sys.executable, str(HERE / "gpu_parts.py"), part.name, str(told), *options]
    found: dict[str, Any] = {"limit": limit, "seconds": 0.0, "error": "it was cut short", "rows": []}
    results.parts[part.name] = found
    results.write()
    began = time.monotonic()
    with log.open("wb") as stream, _process(command, cpu, stream) as process:
        try:
            while process.poll() is None and time.monotonic() - began < limit:
                time.sleep(0.2)
                if _take(told, found):
                    results.write()
        finally:
            late = process.poll() is None
            _end(process)
    _take(told, found)
    found["seconds"] = round(time.monotonic() - began, 1)
    said = log.read_text(encoding="utf-8", errors="replace").strip()
    found["error"] = _error(late, limit, process.returncode, said)
    if found["error"]:
        found["said"] = said[-_SAID:]
    results.write()
    for row in found["rows"]:
        print(_shown(row), flush=True)


def _process(command: list[str], cpu: bool, log: Any) -> subprocess.Popen[bytes]:
    """Start a part in a session of its own, so that whatever it starts can be ended with it."""
    settings = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    own = {**os.environ, **settings} | ({"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if cpu else {})
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=own, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part and all that it has started; it is asked first."""
    for number, patience in ((signal.SIGINT, _GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _take(told: Path, found: dict[str, Any]) -> bool:
    """Take in the rows that a part has told; one that is told again replaces the former. Return whether any is new."""
    text = told.read_text(encoding="utf-8") if told.is_file() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may be half there
    rows = {row["case"]: row for row in map(json.loads, lines)}
    news = [*rows.values()] != found["rows"]
    found["rows"] = [*rows.values()]
    return news


def _error(late: bool, limit: float, code: int, said: str) -> str | None:
    """Return why a part failed, in a sentence, or None."""
    if late:
        return f"It was not done after {limit:.0f} seconds and was ended."
    if not code:
        return None
    last = said.splitlines()[-1] if said else "it said nothing"
    return f"It ended with exit code {code}: {last[:500]}"


def _shown(row: dict[str, Any]) -> str:
    """Return a row as a line: what it is, and the figures that matter in units that can be read."""
    figures = [said.format(row[name] / size) for name, said, size in SHOWN if row.get(name) is not None]
    counts = [f"{name} {row[name]}" for name in COUNTS if name in row]
    wrong = [row["error"]] if row.get("error") else []
    return f"  {row.get('model', '')} {row['case']}: " + ", ".join(figures + counts + wrong)


def _head(cpu: bool) -> dict[str, Any]:
    """Return where and with what this is measured."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True)
    libraries = {name: installed(name) for name in ("accelerate", "tokenizers", "safetensors", "numpy", "triton")}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "benchmarks/gpu.sh" + (" --cpu" if cpu else ""),
        "what": "tiny shapes on a processor: that it runs, and nothing about speed" if cpu else "random weights",
        "commit": commit.stdout.strip() or None,
        "environment": environment() | libraries,
    }


def main() -> None:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="the same in small, without a GPU")
    parser.add_argument("--out", type=Path, help="the JSON file [default: results/DATE-gpu.json; --cpu: a temporary]")
    parser.add_argument("--only", action="append", choices=names, help="a part; what the file has of others stays")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together, on a GPU")
    asked = parser.parse_args()
    if asked.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    head = _head(asked.cpu)
    if not asked.cpu and head["environment"]["device"] == "cpu":
        raise SystemExit("There is no GPU here that torch can use. To see that the check runs: benchmarks/gpu.sh --cpu")
    usual = Path(tempfile.gettempdir()) if asked.cpu else HERE / "results"
    file = asked.out or usual / f"{head['date']}-gpu{'-cpu' if asked.cpu else ''}.json"
    results = Results(file, head, keep=bool(asked.only))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part at hand is ended, too
    slower = _SLOWER if asked.cpu else 1
    allowed, began = asked.seconds * slower, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lorafile-gpu-") as directory:
        for part in PARTS:
            left = allowed - (time.monotonic() - began)
            if asked.only and part.name not in asked.only:
                continue
            if left <= 0:
                results.parts[part.name] = {"error": "No time was left for it.", "rows": []}
                continue
            print(part.name, flush=True)
            run(part, asked.cpu, min(part.limit * slower, left), results, Path(directory))
    results.write()
    _summary(results, file, time.monotonic() - began)


def _summary(results: Results, file: Path, seconds: float) -> None:
    """Say how each part ended, and end with 1 where one failed."""
    print(f"\n{len(results.parts)} parts in {seconds:.0f} s, written to {file}")
    failed = False
    for name, part in results.parts.items():
        wrong = [f"{row['case']}: {row['error']}" for row in part["rows"] if row.get("error")]
        wrong = [*([part["error"]] if part["error"] else []), *wrong]
        failed = failed or bool(wrong)
        print(f"{name:14} {part.get('seconds', 0.0):6.1f} s  {'; '.join(wrong) or 'done'}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
