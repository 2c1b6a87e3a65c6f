"""Few-shot and retrieved-context rows of the untuned model: what stands in their prompts, and who decides it."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from data_fixture import CHATML, SPEC, TURNS, study, with_template  # noqa: E402
from engine_fixture import Engine  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.engine.data.encode import load_tokenizer  # noqa: E402
from lorafile.errors import SpecError  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.state import State  # noqa: E402

SPLIT = "split = { train = 20, validation = 4, test = 6 }\n"
SWEEP = '[[sweep]]\nname = "shots"\nmethod = ["none"]\nnone.shots = [0, 2]\n'


def few_shot(tmp_path: Path, model: Path, rows: Path, sweep: str = SWEEP) -> Study:
    """A study with rows of the untuned model, under two seeds."""
    file = tmp_path / "study.toml"
    text = SPEC.format(model=model, data=rows, more=SPLIT).replace("max_length = 64", "max_length = 120")
    file.write_text(text.replace("seeds = [1]", "seeds = [1, 2]") + sweep, encoding="utf-8")
    return Study.load(file, tmp_path / ".lora")


def test_shots_come_from_train_by_the_study_s_seed(tmp_path: Path, tiny_model: Path, rows_file: Path) -> None:
    mine = few_shot(tmp_path, tiny_model, rows_file)
    applied = mine.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    state = State.read(tmp_path / ".lora")
    texts = {}
    for many in state.latest().values():
        for attempt in many:
            if attempt.kind == "prepare":
                lines = list(read_lines(state.objects.path(attempt.outputs["examples.jsonl.gz"])))
                texts[attempt.address] = [line["prompt"] for line in lines]
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    whole = {row["prompt"] + row["completion"] for row in rows}
    shown = {}
    for seed in (1, 2):
        prompts = texts[f"data/test/shots/method=none,shots=2/seed={seed}:prepare"]
        parts = [prompt.split("\n\n") for prompt in prompts]
        assert {len(part) for part in parts} == {3}
        assert len({tuple(part[:2]) for part in parts}) == 1
        assert [part[2] for part in parts] == texts["data/test:prepare"]
        assert set(parts[0][:2]) <= whole
        shown[seed] = parts[0][:2]
        held_out = {*texts["data/test:prepare"], *texts["data/validation:prepare"]}
        assert not any(one.startswith(tuple(held_out)) for one in shown[seed])
    assert shown[1] != shown[2]
    found = mine.results().set_index(["configuration", "seed"])["test.log_loss"]
    assert len(found) == 3
    assert found.nunique() == 3


def test_more_shots_begin_with_the_fewer() -> None:
    from lorafile.engine.data.examples import draw

    rows = [(n, {"n": n}) for n in range(30)]
    assert draw(rows, 5, 1)[:2] == draw(rows, 2, 1)
    assert draw(rows, 5, 1) != draw(rows, 5, 2)


def test_in_a_chat_shots_are_earlier_turns_and_not_supervised(tmp_path: Path, tiny_model: Path) -> None:
    model = with_template(tiny_model, tmp_path, CHATML)
    other = [{"role": "user", "content": "and bob ?"}, {"role": "assistant", "content": "lima"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in (TURNS, other)), encoding="utf-8")
    config = (model / "config.json").read_text(encoding="utf-8").replace("128", "256")
    (model / "config.json").write_text(config, encoding="utf-8")
    mine = Engine(model, file, tmp_path)
    shots = {"count": 1, "seed": 1, "rows": {"seed": None, "start": 1, "stop": 2}}
    prepared = mine.prepare(1, format="chat", max_length=200, shots=shots)
    (line,) = read_lines(prepared["examples.jsonl.gz"])
    opening = "<|system|> be short ;\n<|user|> and bob ? ;\n<|assistant|> lima ;\n<|user|> where does anna live ? ;\n"
    assert line["prompt"].startswith(opening)
    ids, marks = Tokens.load(prepared["tokens.safetensors"]).example(0)
    said = load_tokenizer(str(model)).decode(ids[marks.bool()])
    assert "lima" not in said
    assert said.count("paris") == said.count("rome") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("none.shots = [21]", "none.shots: 21 examples are more than the train split has: 20"),
        ("none.shot = [2]", 'did you mean "shots"'),
        ("none.shots = [-1]", "at least 0"),
    ],
)
def test_shots_that_cannot_be_shown_say_why(
    tmp_path: Path, tiny_model: Path, rows_file: Path, more: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        few_shot(tmp_path, tiny_model, rows_file, f'[[sweep]]\nmethod = ["none"]\n{more}\n').plan()


def test_shots_mean_nothing_to_a_trained_row(tmp_path: Path, tiny_model: Path, rows_file: Path) -> None:
    mine = few_shot(tmp_path, tiny_model, rows_file, SWEEP.replace('["none"]', '["none", "lora"]'))
    assert [configuration.shots for configuration in mine.spec.configurations] == [0, 2, 0]


def test_evidence_in_the_prompt_is_a_row_of_its_own(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"context": f"anna {n} lives in paris .", "q": f"where does anna {n} live ?", "a": "paris"} for n in range(40)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plain = 'template = { prompt = "{q}", completion = " {a}" }\n'
    sweep = '[[sweep]]\nname = "evidence"\nmethod = ["none"]\ndata.template.prompt = ["{q}", "{context} {q}"]\n'
    mine = study(tmp_path, tiny_model, file, plain, sweep)
    applied = mine.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    assert mine.results()["test.log_loss"].nunique() == 2
    state = State.read(tmp_path / ".lora")
    first = {
        next(iter(read_lines(state.objects.path(a.outputs["examples.jsonl.gz"]))))["prompt"].split()[0]
        for many in state.latest().values()
        for a in many
        if a.kind == "prepare"
    }
    assert first == {"where", "anna"}


def test_what_is_shown_does_not_count_in_max_length(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "where does anna live ?" + " and bob ?" * (n % 4), "completion": " paris"} for n in range(16)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mine = Engine(tiny_model, file, tmp_path)
    shots = {"count": 2, "seed": 1, "rows": {"seed": None, "start": 0, "stop": 8}}
    kept = [
        [
            line["row"]
            for line in read_lines(mine.prepare(16, max_length=14, too_long="drop", **more)["examples.jsonl.gz"])
        ]
        for more in ({}, {"shots": shots})
    ]
    assert kept[0] == kept[1]
    assert 0 < len(kept[0]) < 16
    context = json.loads((tiny_model / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    many = shots | {"count": context // 8, "rows": {"seed": None, "start": 0, "stop": 16}}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows * (context // 16)), encoding="utf-8")
    many["rows"]["stop"] = 16 * (context // 16)
    with pytest.raises(
        AssertionError, match=rf"none\.shots: row 0 has \d+ tokens .* but the model reads at most {context}"
    ):
        mine.prepare(16, max_length=32, shots=many)


def test_the_lengths_of_answers_are_counted_with_the_token_that_ends_them(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "anna lives in", "completion": " paris" * (n + 1), "text": "anna"} for n in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"format": "completion", "template": None, "columns": {}, "max_length": 64, "too_long": "error"}
    rule = {"completion_only_loss": True, "rows": {"seed": None, "start": 0, "stop": 20}}
    done, _ = Engine(tiny_model, file, tmp_path).run("prepare", {"data": {**settings, **rule}})
    tokenizer = load_tokenizer(str(tiny_model))
    lengths = [len(tokenizer(row["completion"], add_special_tokens=False)["input_ids"]) + 1 for row in rows]
    lengths.sort()
    assert done.figures["longest_answer"] == lengths[-1]
    assert done.figures["median_answer"] == (lengths[9] + lengths[10]) / 2
    assert done.figures["p95_answer"] == lengths[18]
    (tmp_path / "text").mkdir()
    text, _ = Engine(tiny_model, file, tmp_path / "text").run(
        "prepare", {"data": {**settings, **rule, "format": "text"}}
    )
    assert "longest_answer" not in text.figures


def test_what_is_cut_and_what_does_not_fit_is_told(tmp_path: Path, tiny_model: Path, rows_file: Path) -> None:
    mine = few_shot(tmp_path, tiny_model, rows_file)
    file = tmp_path / "study.toml"
    measured = 'metrics = ["exact_match"]\nmax_new_tokens = 1'
    file.write_text(file.read_text(encoding="utf-8").replace('metrics = ["log_loss"]', measured), encoding="utf-8")
    mine = Study.load(file, tmp_path / ".lora")
    applied = mine.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    cut = [a.figures["cut"] for a in applied.attempts if a.kind == "predict" and "/test/" in a.address]
    found = mine.gather().warnings
    runs = f"of {6 * len(cut)} answers on test, from {len(cut)} runs, were cut off at evaluate.max_new_tokens = 1"
    assert any(line.startswith(f"{sum(cut)} {runs}") for line in found), found
    (line,) = [line for line in found if line.startswith("evaluate.max_new_tokens:")]
    assert "tokens, half of them more than" in line, "what prepare has counted"
