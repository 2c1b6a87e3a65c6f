"""What start-up costs: planning loads no torch, and a command only what it uses. (import-linter checks the arrows.)"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "safetensors", "tokenizers", "accelerate"}


def loaded(code: str) -> set[str]:
    """Return the top-level modules that a fresh process has loaded after some code."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    return {line.split(".")[0] for line in done.stdout.splitlines()}


def test_planning_and_reporting_load_no_torch() -> None:
    modules = loaded(
        "import lorafile.study.study, lorafile.analysis.registry, lorafile.report.writer\n"
        "import lorafile.apply.executors.local"
    )
    assert not modules & HEAVY


def test_scoring_through_the_door_of_the_engine_loads_no_torch() -> None:
    assert not loaded("import lorafile.engine.run, lorafile.apply.score_pool") & HEAVY


def test_help_loads_click_and_little_else() -> None:
    modules = loaded("import lorafile.cli.main")
    assert not modules & {*HEAVY, "pandas", "altair", "networkx", "sqlite_utils", "pydantic", "rich", "numpy"}


def test_validating_loads_no_store_and_no_tables() -> None:
    modules = loaded("from lorafile.specs import parse")
    assert not modules & {*HEAVY, "pandas", "altair", "sqlite_utils", "sqlite3", "numpy"}


QUICKSTART = ROOT / "examples" / "quickstart" / "study.toml"
TABLES = {"pandas", "altair", "numpy", "scipy", "networkx", "sqlite_utils"}


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["--help"], TABLES | {"pydantic", "rich", "sqlite3"}),
        (["validate", str(QUICKSTART)], TABLES | {"rich"}),
        (["plan", str(QUICKSTART), "--state", "none"], TABLES | {"multiprocessing"}),
    ],
    ids=["help", "validate", "plan"],
)
def test_a_command_loads_only_what_it_uses(arguments: list[str], unused: set[str], tmp_path: Path) -> None:
    arguments = [str(tmp_path / word) if word == "none" else word for word in arguments]
    run = f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code"
    code = f"from lorafile.cli.main import main\n{run}"
    heavy = HEAVY - {"tokenizers"} if "plan" in arguments else HEAVY  # a plan estimates how long its rows are
    assert not loaded(code) & (heavy | unused)
