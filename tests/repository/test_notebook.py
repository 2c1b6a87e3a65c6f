"""The notebook in examples/ does what it shows."""

import json
from pathlib import Path
from typing import Any

import pytest
from spec_fixture import BASIC

pytest.importorskip("torch")

from lorafile import specs

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebook" / "compare.ipynb"
SWEEPS = '[[sweep]]\nname = "rank"\nlora.r = [2, 8]\n[[sweep]]\nname = "baselines"\nmethod = ["none"]\n'


def test_its_cells_run_in_order(
    tmp_path: Path,
    tiny_model: Path,
    rows_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = BASIC.format(model=tiny_model, data=rows_file) + SWEEPS  # the same configurations on two layers
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORA_STATE", raising=False)
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert all(cell["outputs"] == [] for cell in book["cells"] if cell["cell_type"] == "code"), "no outputs in git"
    names: dict[str, Any] = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert list(names["verdicts"]["configuration"]) != []
    assert {"configuration", "compared_with", "verdict", "difference"} <= set(names["verdicts"].columns)
    assert set(names["answers"]["rank/r=8"]) == {"base", "tuned"}
    assert names["chart"].to_dict()["config"]
    assert "url" not in str(names["own"].to_dict()["data"])
    assert (tmp_path / "report" / "report.html").is_file()
    assert "rank/r=2: " in capsys.readouterr().out


def test_its_study_is_a_good_spec_with_the_runs_that_it_asks() -> None:
    spec = specs.load(NOTEBOOK.with_name("study.toml"))
    assert {"rank/r=2", "rank/r=8"} <= {configuration.name for configuration in spec.configurations}
