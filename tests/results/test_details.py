"""What stands behind each run on the page: its keys, its settings, and what it made of the first held-out examples."""

import math
from pathlib import Path

import pytest

pytest.importorskip("torch")

from lorafile.plan.names import names_of
from lorafile.report.html import page
from lorafile.results.outcomes import SAMPLES
from lorafile.state import State
from lorafile.state.names import find_node
from lorafile.state.node_details import history
from lorafile.study.study import Study


def applied(spec_file: Path, more: str = "") -> Study:
    text = spec_file.read_text(encoding="utf-8").replace(
        'metrics = ["log_loss"]', 'metrics = ["log_loss", "exact_match"]'
    )
    spec_file.write_text(text.replace("max_length = 32", f"max_length = 32\n{more}"), encoding="utf-8")
    study = Study.load(spec_file, spec_file.parent / "state")
    assert study.apply(workers=1).with_outcome("failed") == []
    return study


def test_every_key_leads_to_its_node_and_samples_are_what_was_predicted(spec_file: Path) -> None:
    study = applied(spec_file)
    results = study.gather()
    state = State.read(study.state)
    run = (str(results.runs["configuration"][0]), 1)
    detail, sample = results.details[run], results.samples[run]
    assert detail.keys["train"] == results.runs["key"][0]
    names = names_of(state)
    kinds = {name: history(state, find_node(names, key)).kind for name, key in detail.keys.items()}
    assert all(name.startswith(kind) for name, kind in kinds.items())
    assert {"train", "predict/test/generation", "predict/test/likelihood", "score/test"} <= set(detail.keys)
    trained = history(state, find_node(names, detail.keys["train"]))
    assert detail.settings["adapter"]["r"] == trained.settings["adapter"]["r"]
    assert sample.split == "test"
    assert len(sample.rows) == SAMPLES
    assert all(row["prompt"].startswith("where does anna") and row["reference"] for row in sample.rows)
    assert all("answer" in row and row["log_likelihood"] < 0 < row["tokens"] for row in sample.rows)
    by_example = results.outcomes[(*run, "test")].set_index("row")["log_loss"]
    for row in sample.rows:  # the score of the same examples, read from another node
        assert math.isclose(by_example[row["row"]], -row["log_likelihood"] / row["tokens"], rel_tol=1e-9)


def test_of_private_data_no_text_is_read_and_none_is_on_the_page(spec_file: Path) -> None:
    results = applied(spec_file, "private = true").gather()
    run = (str(results.runs["configuration"][0]), 1)
    assert all(set(row) == {"row", "log_likelihood", "tokens"} for row in results.samples[run].rows)
    html = page(results, [])
    assert "where does anna" not in html
    assert results.details[run].keys["train"] in html
