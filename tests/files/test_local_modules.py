"""Modules next to a metric file: in its key with all that they import, or refused; nothing else is found by it."""

import re
from pathlib import Path

import pytest

from lorafile.engine.metrics.custom import CustomMetric, read_custom_metric, run_custom_metric
from lorafile.errors import NodeError

ROWS = [{"row": 0, "answer": "ab", "reference": "y"}]
SCORE = "def score(row):\n    return {}\n"


def write(folder: Path, **files: str) -> None:
    """Write files by their names, where `__` stands for a folder."""
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/').replace('/init', '/__init__')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def read(folder: Path, written: str = "own.py") -> CustomMetric:
    return read_custom_metric(written, "own", folder)


def figure(folder: Path, written: str = "own.py") -> float:
    return run_custom_metric(read(folder, written), ROWS, 60)[0]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("import beside", "beside.VALUE"),
        ("import beside as other", "other.VALUE"),
        ("from beside import VALUE", "VALUE"),
        ("import pack.inner", "pack.inner.VALUE"),
        ("from pack import inner", "inner.VALUE"),
        ("from pack.inner import VALUE", "VALUE"),
        ("from pack import *", "inner.VALUE"),
        ("import bare.inner", "bare.inner.VALUE"),
        ("from bare import inner", "inner.VALUE"),
        ("import importlib", "importlib.import_module('beside').VALUE"),
        ("", "__import__('beside').VALUE"),
        ("from specs_own import VALUE", "VALUE"),
    ],
)
def test_each_way_to_import_a_module_beside_the_file_is_in_the_key(tmp_path: Path, line: str, value: str) -> None:
    package = {
        "metrics__pack__init": "__all__ = ['inner']\n",
        "metrics__pack__inner": "from . import deep\nVALUE = deep.N\n",
    }
    write(tmp_path, metrics__beside="VALUE = 3\n", metrics__pack__deep="N = 3\n", specs_own="VALUE = 3\n", **package)
    write(tmp_path, metrics__bare__inner="VALUE = 3\n", metrics__own=f"{line}\n{SCORE.format(value)}")
    before = read(tmp_path, "metrics/own.py").digest
    assert figure(tmp_path, "metrics/own.py") == 3
    changed = {"metrics__pack__deep": "N = 4\n"} if "pack" in line else {}
    write(
        tmp_path, metrics__beside="VALUE = 4\n", metrics__bare__inner="VALUE = 4\n", specs_own="VALUE = 4\n", **changed
    )
    assert figure(tmp_path, "metrics/own.py") == 4
    assert read(tmp_path, "metrics/own.py").digest != before
    assert not list(tmp_path.rglob("__pycache__")), "a compiled copy may be of an earlier second"


def test_without_local_imports_the_key_is_the_file_s_own(tmp_path: Path) -> None:
    import hashlib

    text = "import statistics\nimport json.decoder\nimport no_such_thing_anywhere\n" + SCORE.format(1)
    write(tmp_path, own=text, statistics="raise SystemExit\n", unused="x = 1\n", json__decoder="raise SystemExit\n")
    assert read(tmp_path).digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_file_that_is_called_like_the_library_that_it_imports_imports_the_library(tmp_path: Path) -> None:
    write(tmp_path, pluggy="import pluggy\n" + SCORE.format("float(hasattr(pluggy, 'PluginManager'))"))
    assert figure(tmp_path, "pluggy.py") == 1


def test_a_module_that_changes_after_the_plan_is_not_run(tmp_path: Path) -> None:
    write(tmp_path, own="import beside\n" + SCORE.format("beside.VALUE"), beside="VALUE = 3\n")
    found = read(tmp_path)
    write(tmp_path, beside="VALUE = 4\n")
    with pytest.raises(NodeError, match=r"own\.py, or a module that it imports, changed after the plan"):
        run_custom_metric(found, ROWS, 60)
    (tmp_path / "beside.py").unlink()
    with pytest.raises(NodeError, match="changed after the plan"):
        run_custom_metric(found, ROWS, 60)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("from . import beside", "own.py:1 imports from ., but is not in a package, so its code could change under"),
        ("from ..up import thing", "own.py:1 imports from ..up, but is not in a package"),
        ("import importlib; m = importlib.import_module('be' + 'side')", "imports a module by a name that is computed"),
        ("m = __import__(NAME)", "own.py:1 imports a module by a name that is computed when it runs"),
        ("import importlib; m = importlib.import_module('.x', 'y')", "by a name that is computed"),
        ("import sys; sys.path.append('.')", "own.py:1 uses sys.path, which decides where modules are found"),
        ("from sys import path", "own.py:1 uses sys.path"),
        (
            "from importlib.util import spec_from_file_location as f",
            "own.py:1 loads a module by spec_from_file_location",
        ),
        ("from importlib import import_module as f", "own.py:1 loads a module by import_module"),
        ("import importlib.util; importlib.util.spec_from_file_location('a', 'b')", "loads a module by spec_from_file"),
        ("import runpy; runpy.run_path('beside.py')", "loads a module by run_path"),
        ("import broken", "broken.py:1 is not Python"),
        (
            "import compiled",
            "compiled.cpython-311.so is compiled, but only Python files can be imported",
        ),
        ("import pluggy", "own.py:1 imports pluggy, which is pluggy.py next to it as well as an installed module"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, line: str, told: str) -> None:
    write(tmp_path, own=f"{line}\n{SCORE.format(1)}", beside="", broken="def (:\n", pluggy="")
    (tmp_path / "compiled.cpython-311.so").write_bytes(b"")
    with pytest.raises(NodeError, match=re.escape(told)):
        read(tmp_path)


def test_a_line_of_an_imported_module_is_refused_there(tmp_path: Path) -> None:
    write(tmp_path, own="import beside\n" + SCORE.format(1), beside="import sys\nsys.path.insert(0, '.')\n")
    with pytest.raises(NodeError, match=r"beside\.py:2 uses sys\.path"):
        read(tmp_path)
