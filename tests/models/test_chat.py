"""`lora chat`: base and tuned side by side, asked through the study's own template."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")

from lorafile import Study
from lorafile.cli.main import main
from lorafile.engine.data.example import Chat
from lorafile.engine.data.prompts import Turn, question_example
from lorafile.errors import NodeError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft itself, used here

SWEEP = '[[sweep]]\nname = "rank"\nlora.r = [4]\n[[sweep]]\nname = "other"\nmethod = ["none", "full"]\n'
QUESTION = "where does anna number 7 live ?"
TEMPLATE = {"template": None, "columns": {}}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> Path:
    """A study whose first seed is trained; its steps are large, so that answers change."""
    from spec_fixture import BASIC

    file = tmp_path_factory.mktemp("study") / "study.toml"
    text = BASIC.format(model=tiny_model, data=rows_file).replace("max_steps = 3", "max_steps = 20")
    file.write_text(text.replace("seeds = [1, 2]", "seeds = [1]") + SWEEP, encoding="utf-8")
    Study.load(file, file.parent / ".lora").apply()
    return file


def lora(spec: Path, *words: str, typed: str | None = None) -> Result:
    where = ["--spec", str(spec), "--state", str(spec.parent / ".lora")]
    return CliRunner().invoke(main, ["chat", *words, *where], input=typed)


def answers(spec: Path, *words: str) -> dict[str, str]:
    done = lora(spec, *words, "--prompt", QUESTION, "--json", "--max-new-tokens", "5")
    assert done.exit_code == 0, done.output
    found: dict[str, str] = json.loads(done.stdout)["answers"]
    return found


def test_answers_are_those_of_plain_peft_and_the_base_is_bare(spec: Path, tiny_model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lorafile.engine.model.adapters import as_directory

    study = Study.load(spec, spec.parent / ".lora")
    plan = study.plan()
    outputs = plan.results[str(plan.graph.replicates["rank/r=4"][0].train)].outputs
    files = {name: str(study.state / "objects" / digest[:2] / digest) for name, digest in outputs.items()}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = torch.tensor([tokenizer(QUESTION)["input_ids"]])
    ids = ids[:, :-1] if ids[0, -1] == tokenizer.eos_token_id else ids

    def said(model: Any) -> str:
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
        return str(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)).strip()

    bare = said(base)
    with as_directory(files) as directory:
        tuned = said(PeftModel.from_pretrained(base, directory).eval())
    assert bare != tuned, "the test shows nothing otherwise"
    assert answers(spec, "rank/r=4") == {"base": bare, "tuned": tuned}
    assert answers(spec, "rank/r=4/seed=1:train") == {"base": bare, "tuned": tuned}
    assert answers(spec, "other/method=none") == {"base": bare}
    full = answers(spec, "other/method=full", "--seed", "1")
    assert full["base"] == bare
    assert set(full) == {"base", "tuned"}


def test_a_directory_answers_as_the_run_it_came_from(spec: Path, tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    study = Study.load(spec, spec.parent / ".lora")
    plan = study.plan()
    outputs = plan.results[str(plan.graph.replicates["rank/r=4"][0].train)].outputs
    for name, digest in outputs.items():
        (tmp_path / name).write_bytes(study_object(study, digest).read_bytes())
    assert answers(spec, str(tmp_path)) == answers(spec, "rank/r=4")
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "whole")
    same = answers(spec, str(tmp_path / "whole"))
    assert same["base"] == same["tuned"]


def study_object(study: Study, digest: str) -> Path:
    return study.state / "objects" / digest[:2] / digest


def test_temperature_draws(spec: Path) -> None:
    assert answers(spec, "rank/r=4", "--temperature", "5") != answers(spec, "rank/r=4", "--temperature", "0")


def test_a_line_is_a_question_and_words_with_a_slash_are_not(spec: Path) -> None:
    done = lora(spec, "rank/r=4", typed=f"{QUESTION}\n/base off\n{QUESTION}\n/what\n/reset\n/base on\n/quit\nnever\n")
    assert done.exit_code == 0
    assert done.output.count("base: ") == 1
    assert done.output.count("tuned: ") == 2
    assert "/reset clears the conversation" in done.output
    assert "never" not in done.output
    assert lora(spec, "rank/r=4", typed=QUESTION).exit_code == 0, "the end of the input is an end"


def test_whom_one_cannot_talk_to_is_said(spec: Path) -> None:
    assert 'did you mean "rank/r=4"?' in lora(spec, "rank/r=5", "--prompt", "x").output
    assert "has no seed 9; it has 1." in lora(spec, "rank/r=4", "--seed", "9", "--prompt", "x").output
    other = spec.parent / "other.toml"
    other.write_text(spec.read_text(encoding="utf-8").replace("lora.r = [4]", "lora.r = [2]"), encoding="utf-8")
    absent = lora(other, "rank/r=2", "--prompt", "x")
    assert f"rank/r=2/seed=1 is not trained yet. Train it with: lora apply {other}" in absent.output
    wild = other.read_text(encoding="utf-8").replace("lora.r = [2]", 'method = ["full"]\ntrain.learning_rate = [1e30]')
    other.write_text(wild, encoding="utf-8")
    Study.load(other, spec.parent / ".lora").apply()
    lost = lora(other, "rank/method=full,learning_rate=1e+30", "--prompt", "x")
    assert "ended as diverged, so there is no model to chat with: Training diverged" in lost.output
    assert lora(spec, "rank/r=4", "--json").exit_code == 64


def test_an_adapter_cut_to_a_smaller_rank_answers_at_its_address(spec: Path) -> None:
    cut = spec.parent / "cut.toml"
    cut.write_text(spec.read_text(encoding="utf-8") + "[truncate]\nranks = [2]\n", encoding="utf-8")
    study = Study.load(cut, spec.parent / ".lora")
    study.apply()
    (address,) = [node.address for node in study.plan().graph.nodes.values() if node.kind == "truncate"]
    assert set(answers(cut, address)) == {"base", "tuned"}
    assert answers(cut, address)["base"] == answers(spec, "rank/r=4")["base"]


def plain(messages: list[Any], opens: bool, _tools: list[Any] | None) -> str:
    return "".join(f"<{row['role']}>{row['content']}" for row in messages) + ("<assistant>" if opens else "")


def asked(data: dict[str, Any], question: str, columns: dict[str, Any], before: list[Turn] | None = None) -> str:
    return question_example({**TEMPLATE, **data}, question, columns, before or [], Chat(plain)).prompt


def test_a_question_goes_through_the_formats_own_template() -> None:
    assert asked({"format": "question"}, "who ?", {}) == "Question: who ?\nAnswer:"
    assert "### Instruction:\nsum\n\n### Input:\n1 2" in asked({"format": "alpaca"}, "sum", {"input": "1 2"})
    assert asked({"format": "text"}, "Once", {}) == "Once"
    squad = asked({"format": "squad", "unanswerable": ""}, "who ?", {"context": "Anna."})
    assert squad == "Anna.\n\nQuestion: who ?\nAnswer:"
    labels = [["0", "bad"], ["1", "good"]]
    assert asked({"format": "classification", "labels": labels}, "a film", {}).startswith("Text: a film\n")
    said = [Turn("hi", "hello")]
    assert asked({"format": "chat"}, "more", {}, said) == "<user>hi<assistant>hello<user>more<assistant>"
    assert asked({"format": "guanaco"}, "more", {}, said) == (
        "### Human: hi### Assistant: hello### Human: more### Assistant:"
    )
    own = {"format": "template", "template": {"prompt": "{context} Q: {q} A:", "completion": " {a}"}}
    assert asked(own, "who ?", {"context": "Anna."}) == "Anna. Q: who ? A:"
    with pytest.raises(NodeError, match=r"needs the columns q, besides context\. Set them with --column q=…"):
        asked(own, "who ?", {})


@pytest.mark.parametrize(("key", "code"), [(b"\x04", 0), (b"\x03", 130)])
def test_ctrl_d_and_ctrl_c_end_cleanly_in_a_terminal(spec: Path, key: bytes, code: int) -> None:
    ours, theirs = pty.openpty()
    script = "from lorafile.cli.main import main; main()"
    words = ["chat", "rank/r=4", "--spec", str(spec), "--state", str(spec.parent / ".lora")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", script, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = read_until(ours, b"> ")
    os.write(ours, QUESTION.encode() + b"\n")
    shown += read_until(ours, b"> ", times=2)
    time.sleep(1)  # a key between the prompt and the read behind it is not seen: Python's own race, and no user's
    os.write(ours, key)
    assert process.wait(timeout=120) == code
    assert b"base" in shown
    assert b"tuned" in shown
    assert b"Traceback" not in shown
    os.close(ours)


def read_until(handle: int, mark: bytes, times: int = 1) -> bytes:
    """Read from a terminal until a mark stands at the beginning of a line."""
    found, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([handle], [], [], 1)[0]:
            found += os.read(handle, 4096)
        if found.endswith(mark) and (times == 1 or b"tuned" in found):
            return found
    raise AssertionError(found)


def test_a_chat_has_a_limit_of_its_own(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorafile.engine.inference import chat as engine

    asked = []

    def answer(*words: Any) -> list[Any]:
        asked.append(words[3]["max_new_tokens"])
        return [engine.Answer("yes", False)]

    monkeypatch.setattr(engine, "answer", answer)
    assert lora(spec, "other/method=none", "--prompt", QUESTION).exit_code == 0
    assert lora(spec, "other/method=none", "--prompt", QUESTION, "--max-new-tokens", "7").exit_code == 0
    assert asked == [512, 7]
