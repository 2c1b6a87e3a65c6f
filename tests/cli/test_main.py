"""The command line as its user meets it: exit codes, and sentences instead of tracebacks."""

import json
import os
import re
from pathlib import Path

import pytest
from command_fixture import lora

from lorafile.state import State

SIX_MISTAKES = """\
[study]
name = "six"
seeds = ["a"]
[model]
pth = "builtin:facts-llama"
[data]
path = "builtin:facts"
[lora]
lora_droput = 0.1
[train]
lr_scheduler_type = "cosin"
[evaluate]
metrics = ["exact_mach"]
[[sweep]]
lora.r = [4, "8"]
"""


def test_six_mistakes_are_six_located_messages(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(SIX_MISTAKES, encoding="utf-8")
    told = lora("validate", cwd=tmp_path)
    assert told.returncode == 3
    lines = told.stderr.strip().splitlines()
    assert [line.split(":")[1] for line in lines] == ["3", "5", "9", "11", "13", "15"]
    for name in ("path", "lora_dropout", "cosine", "exact_match"):
        assert f'did you mean "{name}"?' in told.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan", "nowhere.toml"], 3, "file not found"),
        (["plan", "--nonsense"], 64, "No such option"),
        (["nonsense"], 64, "No such command"),
        (["apply", "study.toml"], 1, "Pass --yes"),
        (["plan", "study.toml", "--gpu", "much"], 1, "neither a memory size"),
        (["plan", "study.toml", "--detailed-exitcode"], 2, ""),
        (["plan", "study.toml"], 0, ""),
        (["init", "--preset", "rank_swep", "x.toml"], 64, "rank_sweep"),
        (["init", "study.toml"], 1, "already exists"),
    ],
)
def test_exit_codes(spec_file: Path, arguments: list[str], code: int, words: str) -> None:
    told = lora(*arguments, cwd=spec_file.parent)
    assert told.returncode == code, told.stdout + told.stderr
    assert words in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{model}", "../no/model", "There is no file or directory"),
        ("{model}", "somebody/no-such-model", "neither a path here nor in the hub cache, and HF_HUB_OFFLINE is set"),
        ("{data}", "rows/absent.jsonl", "There is no file or directory"),
        ("{data}", "{empty}", "is empty"),
        ("{data}", "{strange}", "match no known format"),
        ("{data}", "{broken}", "broken.jsonl:2:12: not valid JSON"),
        ("{model}", "builtin:nothing", "built-in data"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_paid(
    tmp_path: Path, tiny_model: Path, rows_file: Path, old: str, new: str, words: str
) -> None:
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "strange.jsonl").write_text('{"a": 1, "b": 2}\n' * 20, encoding="utf-8")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n', encoding="utf-8")
    names = {"{empty}": "empty.jsonl", "{strange}": "strange.jsonl", "{broken}": "broken.jsonl"}
    paths = {"{model}": str(tiny_model), "{data}": str(rows_file), old: names.get(new, new)}
    text = f'[study]\nname = "x"\n[model]\npath = "{paths["{model}"]}"\n[data]\npath = "{paths["{data}"]}"\n'
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    told = lora("plan", cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert told.returncode in (1, 3), told.stdout
    assert words in told.stderr
    places = {"{model}": "4:1: model.path", "{data}": "6:1: data.path"}
    place = "5:1: data.format" if new == "{strange}" else places[old]  # of no setting, its table
    assert told.stderr.startswith(f"study.toml:{place}: ")
    assert "Traceback" not in told.stderr
    assert not (tmp_path / ".lora").exists()


def test_a_missing_column_is_said_with_the_columns_that_there_are(spec_file: Path) -> None:
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text.replace("max_length = 32", 'max_length = 32\nformat = "alpaca"'), encoding="utf-8")
    told = lora("plan", cwd=spec_file.parent)
    assert told.returncode == 3
    assert 'no column "instruction"' in told.stderr
    assert "prompt, completion" in told.stderr


def test_a_plan_as_json_is_the_documented_format(spec_file: Path) -> None:
    plan = json.loads(lora("plan", "--json", cwd=spec_file.parent).stdout)
    assert plan["format_version"] == "1.0"
    assert set(plan["summary"]) == {"run", "reuse", "retry", "drift", "blocked", "undeclared"}
    assert plan["summary"]["run"] == len(plan["changes"])
    assert {"address", "key", "kind", "action", "reason", "forecast"} <= set(plan["changes"][0])
    train = next(change for change in plan["changes"] if change["kind"] == "train")
    assert train["forecast"]["peak_memory_bytes"] > 0
    assert train["forecast"]["fits"] is True
    tight = json.loads(lora("plan", "--json", "--gpu", "1MB", cwd=spec_file.parent).stdout)
    assert all(c["forecast"]["fits"] is False for c in tight["changes"] if c["kind"] == "train")


def test_table_sentence_and_limit_name_the_same_memory(spec_file: Path) -> None:
    told = lora("plan", "--gpu", "1GB", cwd=spec_file.parent).stdout
    assert "A GPU of 1GB has 1.0 GiB; driver and CUDA context take 1.1 GiB, which leaves 0 MiB." in told
    needed = re.search(r"does not fit: it needs ([0-9.]+ MiB), and a GPU of 1GB has 0 MiB available\.", told)
    assert needed is not None
    row = next(line for line in told.splitlines() if " NO " in line)
    assert needed[1] in row


def test_from_nothing_to_a_report_and_back_to_nothing_to_do(spec_file: Path) -> None:
    pytest.importorskip("torch")
    here = spec_file.parent
    done = lora("apply", "--yes", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done: 3 prepare, 2 train" in done.stdout
    again = lora("apply", "--yes", cwd=here)
    assert "Nothing to do" in again.stdout
    assert lora("plan", "--detailed-exitcode", cwd=here).returncode == 0
    assert lora("report", cwd=here).returncode == 0
    assert (here / "report" / "report.html").stat().st_size > 10_000
    assert "log" in (here / "report" / "RESULTS.md").read_text(encoding="utf-8")
    figures = json.loads(lora("report", "--json", cwd=here).stdout)
    assert figures["format_version"] == "1.0"


def test_an_environment_variable_names_the_state(spec_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    lora("apply", "--yes", cwd=spec_file.parent, LORA_STATE=str(tmp_path / "elsewhere"))
    state = State.read(tmp_path / "elsewhere")
    assert state.latest()
    assert not (spec_file.parent / ".lora").exists()


def test_a_locked_state_is_exit_code_4(spec_file: Path) -> None:
    with State.write(spec_file.parent / ".lora"):
        told = lora("apply", "--yes", cwd=spec_file.parent)
        waited = lora("apply", "--yes", "--lock-timeout", "0.5", cwd=spec_file.parent)
        quiet = lora("apply", "--yes", "--lock-timeout", "0.5", "--quiet", cwd=spec_file.parent)
    assert [one.returncode for one in (told, waited, quiet)] == [4, 4, 4]
    assert f"(process {os.getpid()}: " in told.stderr
    first, last = waited.stderr.splitlines()
    assert "in use by" in first
    assert first.endswith("Waiting, 0.5 s at most.")
    assert "It was still in use after 0.5 s." in last
    assert len(quiet.stderr.splitlines()) == 1, "an error is told, and nothing else"


def test_every_command_has_an_example() -> None:
    from lorafile.cli.main import main

    for name, command in main.commands.items():
        assert "Example: lora" in (command.help or ""), name


def test_init_writes_a_spec_that_plans(tmp_path: Path) -> None:
    assert lora("init", cwd=tmp_path).returncode == 0
    assert lora("plan", cwd=tmp_path).returncode == 0


def test_a_plan_warns_of_comparisons_that_will_be_refused(spec_file: Path) -> None:
    sweep = """
[[sweep]]
name = "both"
zip = ["lora.r", "train.learning_rate"]
lora.r = [2, 4]
train.learning_rate = [1e-3, 3e-3]
[[analysis]]
kind = "compare"
factor = "lora.r"
"""
    spec_file.write_text(spec_file.read_text(encoding="utf-8") + sweep, encoding="utf-8")
    told = lora("plan", cwd=spec_file.parent)
    words = " ".join((told.stdout + told.stderr).split())
    assert "1 comparison along lora.r will be refused because train.learning_rate also differs" in words
