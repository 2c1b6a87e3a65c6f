"""Scripts that CI does not run in full still import what is there."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").rglob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_imports_of_lorafile_what_is_there(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lorafile"):
            module = import_module(str(node.module))
            gone = [
                name.name for name in node.names if not hasattr(module, name.name) and not _is_module(node, name.name)
            ]
            assert not gone, f"{node.module} has no {gone}"


def test_the_tests_that_the_check_on_a_gpu_runs_are_there() -> None:
    source = ast.parse((ROOT / "benchmarks" / "gpu_parts.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in source.body if isinstance(node, ast.Assign)}
    for name in ast.literal_eval(assigned["TESTS"]):
        file, _, function = name.partition("::")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in text, name


def _is_module(node: ast.ImportFrom, name: str) -> bool:
    try:
        import_module(f"{node.module}.{name}")
    except ModuleNotFoundError:
        return False
    return True
