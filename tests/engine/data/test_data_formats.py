"""Every format of data, from its published layout to what is supervised and what its predictions carry."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from data_fixture import CHATML, NAMED, SPLIT, TURNS, sst2, study, with_template  # noqa: E402
from engine_fixture import Engine  # noqa: E402

from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.engine.data.encode import load_tokenizer  # noqa: E402
from lorafile.engine.data.readers import read_rows  # noqa: E402
from lorafile.errors import SpecError  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.state import State  # noqa: E402


def test_a_tsv_file_as_glue_publishes_it_quotes_nothing(tmp_path: Path) -> None:
    rows = list(read_rows([sst2(tmp_path) / "train.tsv"]))
    assert len(rows) == 24
    assert rows[1] == {"sentence": 'a happy paris "number 1 ,', "label": "1"}


def test_sst2_in_its_published_layout_is_classified_and_trained(tmp_path: Path, tiny_model: Path) -> None:
    mine = study(tmp_path, tiny_model, sst2(tmp_path), SPLIT + NAMED, '[[sweep]]\nmethod = ["none", "lora"]\n')
    assert {attempt.outcome for attempt in mine.apply().attempts} == {"done"}
    state = State.read(tmp_path / ".lora")
    done = next(
        a for many in state.latest().values() for a in many if a.kind == "prepare" and a.address == "data/test:prepare"
    )
    assert done.figures["choices"] == ["rome", "paris"]
    line = list(read_lines(state.objects.path(done.outputs["examples.jsonl.gz"])))[1]
    assert line["prompt"] == 'Text: a happy paris "number 1 ,\nLabel (rome, paris):'
    assert (line["reference"], line["choices"], line["completions"]) == (
        "paris",
        ["rome", "paris"],
        [" rome", " paris"],
    )
    assert mine.results()["test.log_loss"].notna().all()


def test_hidden_labels_are_refused_before_anything_is_paid_for(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"idx": n, "sentence": "paris", "label": -1} for n in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    message = r'data.split: train draws from train, which has no labels \("label" is all -1 there\)'
    with pytest.raises(SpecError, match=message):
        study(tmp_path, tiny_model, file).plan()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('labels = { "0" = "rome" }', 'data.labels: does not name the class "1"'),
        ('labels = { "0" = "rome", "1" = "rome" }', '"rome" is the name of two classes'),
        ('format = "text"\nlabels = { "0" = "rome" }', 'data.format = "text" has none'),
    ],
)
def test_labels_that_do_not_fit_the_data_say_why(tmp_path: Path, tiny_model: Path, more: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        study(tmp_path, tiny_model, sst2(tmp_path), SPLIT + more).plan()


@pytest.mark.parametrize("labels", [["paris", "rome"], ["paris", "paris rome"]])
def test_a_choice_is_the_label_of_the_highest_likelihood(tiny_model: Path, tmp_path: Path, labels: list[str]) -> None:
    """Against transformers' own loss, one candidate at a time; a label that begins another is closed by the end."""
    from transformers import AutoModelForCausalLM

    file = tmp_path / "rows.jsonl"
    rows = [{"text": f"where does anna number {n} live ?", "label": n % 2} for n in range(7)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mine = Engine(tiny_model, file, tmp_path)
    prepared = mine.prepare(7, format="classification", labels=[["0", labels[0]], ["1", labels[1]]], max_length=64)
    found = mine.predict(prepared, None, "choice", size=3)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), load_tokenizer(str(tiny_model))
    for row, line in zip(rows, found, strict=True):
        scores = {}
        for label in labels:
            prompt = f"Text: {row['text']}\nLabel ({', '.join(labels)}):"
            ids = tokenizer(f"{prompt} {label}")["input_ids"] + ([2] if "paris rome" in labels else [])
            aims = torch.tensor(
                [[-100] * len(tokenizer(prompt)["input_ids"]) + ids[len(tokenizer(prompt)["input_ids"]) :]]
            )
            loss = model(input_ids=torch.tensor([ids]), labels=aims).loss
            scores[label] = -loss.item() * int((aims != -100).sum())
        assert line["scores"] == pytest.approx(scores, abs=1e-4)
        assert line["answer"] == max(scores, key=scores.__getitem__)
        assert line["reference"] == labels[row["label"]]


def test_mrpc_s_own_headers_and_a_template_with_the_label(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "train.tsv"
    rows = "".join(f"{n % 2}\t{n}\t{n}\tparis is\trome is\n" for n in range(9))
    file.write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + rows, encoding="utf-8")
    mine = Engine(tiny_model, file, tmp_path)
    labels = [["0", "no"], ["1", "yes"]]
    prepared = mine.prepare(9, format="classification", labels=labels, max_length=64)
    line = next(iter(read_lines(prepared["examples.jsonl.gz"])))
    assert line["prompt"] == "Sentence 1: paris is\nSentence 2: rome is\nLabel (no, yes):"
    template = {"prompt": "{sentence1} = {sentence2} ?", "completion": " {label} !"}
    prepared = mine.prepare(9, format="classification", labels=labels, max_length=64, template=template)
    line = next(iter(read_lines(prepared["examples.jsonl.gz"])))
    assert line["prompt"] == "paris is = rome is ?"
    assert line["completions"] == [" no !", " yes !"]


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "cities",
            "paragraphs": [
                {
                    "context": "anna lives in paris .",
                    "qas": [
                        {
                            "id": "1",
                            "question": "where ?",
                            "answers": [{"text": t, "answer_start": 14} for t in ("paris", "paris", "in paris")],
                            "is_impossible": False,
                        },
                        {"id": "2", "question": "who in rome ?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def test_squad_in_its_published_layout_and_its_predictions(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "dev-v2.0.json"
    file.write_text(json.dumps(SQUAD), encoding="utf-8")
    mine = Engine(tiny_model, file, tmp_path)
    prepared = mine.prepare(2, format="squad", unanswerable="nobody knows", max_length=128)
    one, two = read_lines(prepared["examples.jsonl.gz"])
    asks = 'If the text below does not answer the question, write "nobody knows".\n\n'
    assert one["prompt"] == f"{asks}anna lives in paris .\n\nQuestion: where ?\nAnswer:"
    found = mine.predict(prepared, None, "generation")
    assert [(row["reference"], row["references"]) for row in found] == [
        ("paris", ["paris", "in paris"]),
        ("nobody knows", []),
    ]
    assert {row["unanswerable"] for row in found} == {"nobody knows"}
    assert two["bytes"] == len(" nobody knows")


def test_squad_as_the_hub_has_it_gives_the_same_prompts(tmp_path: Path, tiny_model: Path) -> None:
    import pandas as pd

    pd.DataFrame(
        [{"context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}, "id": "1", "title": "t"}]
    ).to_parquet(tmp_path / "rows.parquet")
    mine = Engine(tiny_model, tmp_path / "rows.parquet", tmp_path)
    (line,) = read_lines(mine.prepare(1, format="squad", unanswerable="")["examples.jsonl.gz"])
    assert line["prompt"] == "c\n\nQuestion: q\nAnswer:"
    assert line["references"] == ["a"]


def test_bytes_of_the_supervised_text_travel_to_the_predictions(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "where ?", "completion": " zürich"}, {"prompt": "where ?", "completion": " rome"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mine = Engine(tiny_model, file, tmp_path)
    assert [row["bytes"] for row in mine.predict(mine.prepare(2), None)] == [8, 5]


MARKED = (
    "{% for m in messages %}<|{{ m.role }}|> {% if m.role == 'assistant' %}{% generation %}{{ m.content }} ;\n"
    "{% endgeneration %}{% else %}{{ m.content }} ;\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
LAST_ONLY = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last or m.role != 'assistant' else '…' }}")


def supervised(prepared: dict[str, str], tokenizer: Any, index: int = 0) -> str:
    ids, marks = Tokens.load(prepared["tokens.safetensors"]).example(index)
    return str(tokenizer.decode(ids[marks.bool()]))


@pytest.mark.parametrize("template", [CHATML, MARKED])
@pytest.mark.parametrize("layout", ["messages", "conversations"])
def test_every_turn_of_the_assistant_is_supervised_and_no_other(
    tiny_model: Path, tmp_path: Path, template: str, layout: str
) -> None:
    model = with_template(tiny_model, tmp_path, template)
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    shared = [{"from": names[turn["role"]], "value": turn["content"]} for turn in TURNS]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({layout: TURNS if layout == "messages" else shared}), encoding="utf-8")
    mine = Engine(model, file, tmp_path)
    prepared = mine.prepare(1, format="chat", max_length=128)
    tokenizer = load_tokenizer(str(model))
    (line,) = read_lines(prepared["examples.jsonl.gz"])
    expected = tokenizer("paris ;\n", add_special_tokens=False)["input_ids"]
    expected += tokenizer("in rome ;\n", add_special_tokens=False)["input_ids"]
    expected += [tokenizer.eos_token_id] if template == CHATML else []  # what is marked is all that is supervised
    ids, marks = Tokens.load(prepared["tokens.safetensors"]).example(0)
    assert ids[marks.bool()].tolist() == expected
    assert line["reference"] == "in rome ;", "what the template writes"
    assert line["prompt"].endswith("and tom ? ;\n<|assistant|> ")
    assert line["bytes"] == len("paris ;\nin rome ;\n")


def test_a_template_that_rewrites_earlier_answers_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = with_template(tiny_model, tmp_path, LAST_ONLY)
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": TURNS}), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"differently when more turns follow, .*\(row 0\)"):
        Engine(model, file, tmp_path).prepare(1, format="chat", max_length=128)


def test_guanaco_s_layout_supervises_both_answers(tiny_model: Path, tmp_path: Path) -> None:
    text = "### Human: where does anna live ?### Assistant: paris### Human: and tom ?### Assistant: rome### Human: so"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": text}), encoding="utf-8")
    mine = Engine(tiny_model, tmp_path / "rows.jsonl", tmp_path)
    prepared = mine.prepare(1, format="guanaco", max_length=128)
    (line,) = read_lines(prepared["examples.jsonl.gz"])
    assert line["prompt"] == text[: text.index(" rome")]
    assert (line["reference"], line["bytes"]) == ("rome", len(" paris rome"))
    assert supervised(prepared, load_tokenizer(str(tiny_model))).replace("</s>", "").split() == ["paris", "rome"]


def test_an_example_whose_answer_is_cut_away_is_left_out_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "where does anna live ?" + " and bob ?" * n, "completion": " in paris and rome"} for n in range(6)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mine = Engine(tiny_model, file, tmp_path)
    lengths = [len(load_tokenizer(str(tiny_model))(row["prompt"])["input_ids"]) for row in rows]
    settings = mine.prepare_settings(6, max_length=lengths[3], too_long="truncate")
    done, files = mine.run("prepare", {"data": settings})
    assert [line["row"] for line in read_lines(Path(files["examples.jsonl.gz"]))] == [0, 1, 2]
    assert (done.figures["answers_lost"], done.figures["examples"]) == (3, 3)
    assert all(Tokens.load(Path(files["tokens.safetensors"])).example(n)[1].any() for n in range(3))


def written(root: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root / name


@pytest.mark.parametrize(
    ("label", "hidden", "advised"),
    [
        ("label", -1, 'data.where = "label >= 0"'),
        ("label", "-1", 'data.where = "label >= 0"'),
        ("label", "-", "data.where = 'label != \"-\"'"),
        ("label", None, "data.where = 'label != \"\"'"),
        ("my label", -1, "data.where = '\"my label\" >= 0'"),
    ],
)
def test_rows_without_a_label_are_refused_with_advice_that_helps(
    tmp_path: Path, tiny_model: Path, label: str, hidden: Any, advised: str
) -> None:
    rows = [{"text": f"paris {n}", label: hidden if n % 4 == 3 else n % 4} for n in range(40)]
    more = "" if label == "label" else f'format = "classification"\ncolumns = {{ label = "{label}" }}\n'
    file = written(tmp_path, rows)
    what = 'have no label in "label"' if hidden is None else f'have the label "{hidden}"'
    with pytest.raises(SpecError, match=what) as caught:
        study(tmp_path, tiny_model, file, more).plan()
    assert str(caught.value).endswith(advised)
    setting = advised.removeprefix("data.")
    mine = study(tmp_path, tiny_model, file, f"{more}{setting}\n")
    plan = mine.plan()
    assert any("data.where excludes rows: 10 of train" in notice for notice in plan.warnings)
    rules = [node.settings["data"]["rows"] for node in plan.graph.nodes.values() if node.kind == "prepare"]
    assert sum(rule["stop"] - rule["start"] for rule in rules) == 30
    done = mine.apply(mine.plan(target=["data/train:prepare", "data/validation:prepare", "data/test:prepare"]))
    assert [attempt.outcome for attempt in done.attempts] == ["done"] * 3


def test_a_split_without_labels_is_named_with_one_that_has_some(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(SpecError, match=r'test draws from test, which has no labels \("label" is missing') as caught:
        study(tmp_path, tiny_model, sst2(tmp_path)).plan()
    advised = str(caught.value).split("can be used instead: ")[1]
    study(tmp_path, tiny_model, tmp_path / "SST-2", advised + "\n").plan()


def test_preferences_are_refused_by_name_unless_the_spec_says_what_to_read(tmp_path: Path, tiny_model: Path) -> None:
    file = written(tmp_path, [{"prompt": f"q {n}", "chosen": f"a {n}", "rejected": "b"} for n in range(20)])
    with pytest.raises(
        SpecError, match=r"study\.toml:\d+:1: data\.format: .*is a preference set \(columns chosen, rejected\)"
    ):
        study(tmp_path, tiny_model, file).plan()
    for more in (
        'template = { prompt = "{prompt}", completion = " {chosen}" }\n',
        'format = "completion"\ncolumns = { completion = "chosen" }\n',
        'columns = { completion = "chosen" }\n',
    ):
        study(tmp_path, tiny_model, file, more).plan()


@pytest.mark.parametrize("rated", [True, "true", 1, "1"])
def test_rated_answers_are_refused_until_the_good_ones_are_selected(
    tmp_path: Path, tiny_model: Path, rated: Any
) -> None:
    """KTO's layout: training on all of it would learn the bad answers, too."""
    other: Any = {True: False, "true": "false", "1": "0"}[rated]
    other = int(other) if type(rated) is int else other
    rows = [{"prompt": f"q {n}", "completion": f"a {n}", "label": rated if n % 3 else other} for n in range(30)]
    file = written(tmp_path, rows)
    with pytest.raises(SpecError, match=r"study\.toml:\d+:1: data\.format: .*an unpaired preference set") as caught:
        study(tmp_path, tiny_model, file).plan()
    selected, otherwise = re.findall(r"set data\.(.+?)\.(?: |$)", str(caught.value))
    good = study(tmp_path, tiny_model, file, f"{selected}\n").plan()
    assert any("data.where excludes rows: 10 of train" in notice for notice in good.warnings)
    study(tmp_path, tiny_model, file, f"{otherwise}\n").plan()  # said, not guessed
    unrated = written(tmp_path, [row | {"label": f"{number % 3}"} for number, row in enumerate(rows)])
    study(tmp_path, tiny_model, unrated).plan()
