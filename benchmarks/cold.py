"""How long does a person wait for a command? Cold processes in turns, as ratios to a bare `import click`.

Run `python benchmarks/cold.py` in an installation; it prints a table and writes `benchmarks/results/DATE-cold.json`.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPEC = HERE.parent / "examples" / "quickstart" / "study.toml"
TURNS = 9
LORA = [sys.executable, "-P", "-c", "from lorafile.cli import main; main()"]


def commands(state: str) -> dict[str, list[str]]:
    return {
        "import click": [sys.executable, "-P", "-c", "import click"],
        "lora --help": [*LORA, "--help"],
        "lora validate": [*LORA, "validate", str(SPEC)],
        "lora plan": [*LORA, "plan", str(SPEC), "--state", state],
    }


def measure(state: str) -> dict[str, list[float]]:
    """Return the seconds of each command, all of them in turns, after one turn that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in commands(state)}
    for turn in range(TURNS + 1):
        for name, command in commands(state).items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn:
                found[name].append(time.perf_counter() - began)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = measure(f"{directory}/state")
    bare = found["import click"]
    rows = {}
    for name, seconds in found.items():
        ratios = [one / other for one, other in zip(seconds, bare, strict=True)]
        wall, ratio = statistics.median(seconds), statistics.median(ratios)
        rows[name] = {"median_seconds": wall, "median_ratio_to_import_click": ratio}
        print(f"{name:15} {wall * 1000:7.0f} ms   {ratio:5.1f} x")
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {"python": platform.python_version(), "lorafile": version("lorafile"), "turns": TURNS}
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    (out / f"{about['date']}-cold.json").write_text(
        json.dumps({**about, "commands": rows}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
