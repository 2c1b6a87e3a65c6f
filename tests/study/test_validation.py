"""Every mistake of a spec at once, those of its model and its data included."""

from pathlib import Path

import pytest

from lorafile.study.validation import check

SPEC = """\
[study]
name = "x"
seeds = [1]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
[lora]
r = 8
[evaluate]
metrics = ["log_loss"]
"""


def mistakes(folder: Path, *changes: tuple[str, str]) -> list[str]:
    """Return the mistakes of the spec with some texts changed, as `line: setting: beginning of the message`."""
    text = SPEC
    for old, new in changes:
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text, encoding="utf-8")
    _, lines, unseen = check(folder / "study.toml")
    assert not unseen
    return [line.removeprefix(f"{folder}/study.toml:") for line in lines]


@pytest.fixture(autouse=True)
def needs_torch() -> None:
    pytest.importorskip("torch")


def test_a_good_spec_has_none(tmp_path: Path) -> None:
    assert mistakes(tmp_path) == []


def test_model_and_data_that_are_missing_are_both_said(tmp_path: Path) -> None:
    lines = mistakes(tmp_path, ("builtin:facts-llama", "./nowhere"), ('"builtin:facts"', '"rows.jsonl"'))
    assert [line.split(": ")[:2] for line in lines] == [["5:1", "model.path"], ["7:1", "data.path"]]


def test_they_are_said_next_to_the_mistakes_of_the_spec_itself(tmp_path: Path) -> None:
    lines = mistakes(tmp_path, ("r = 8", "rr = 8"), ('"builtin:facts"', '"rows.jsonl"'), ("log_loss", "log_los"))
    assert [line.split(": ")[1] for line in lines] == ["lora.rr", "evaluate.metrics[0]", "data.path"]


def test_each_configuration_says_what_its_model_does_not_have(tmp_path: Path) -> None:
    sweep = '[[sweep]]\nname = "m"\nlora.target_modules = [["q_proj", "w_proj"], ["no_proj"]]\n'
    lines = mistakes(tmp_path, ("[evaluate]", f"{sweep}[evaluate]"))
    assert len(lines) == 2
    assert '"w_proj"' in lines[0]
    assert '"no_proj"' in lines[1]


def test_data_are_checked_although_the_model_is_missing(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 20, encoding="utf-8")
    lines = mistakes(
        tmp_path,
        ("builtin:facts-llama", "./nowhere"),
        ('"builtin:facts"', '"rows.jsonl"\nformat = "alpaca"'),
    )
    first, second = lines
    assert first.split(": ")[1] == "model.path"
    assert 'no column "instruction"' in second


def test_what_only_the_hub_has_is_named_and_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "study.toml").write_text(SPEC.replace("builtin:facts-llama", "some/model"), encoding="utf-8")
    spec, lines, unseen = check(tmp_path / "study.toml")
    assert spec is not None
    assert (lines, unseen) == ([], ["the model some/model"])
