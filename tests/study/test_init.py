"""`lora init`: a first spec for whatever model and data the user has."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorafile import Study
from lorafile.errors import LoraError, ModelError, SpecError
from lorafile.specs import Spec, parse
from lorafile.specs.catalogue import preset, preset_names
from lorafile.study.data_format import detect_format, toml_string
from lorafile.study.init import first_spec


def spec(text: str) -> Spec:
    return parse(text, Path("study.toml"))


def write(folder: Path, *rows: dict[str, Any], name: str = "rows.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def data_of(folder: Path, **row: Any) -> dict[str, Any]:
    return spec(first_spec(data=write(folder, row)).text).tables.data.model_dump()


def test_without_anything_it_is_a_study_of_the_built_in_task() -> None:
    found = spec(first_spec().text)
    assert [c.method for c in found.configurations] == ["lora", "lora", "lora", "none", "full"]
    assert found.primary == "exact_match"


def test_rates_are_ordinary_for_a_model_of_ones_own() -> None:
    assert spec(first_spec(model="owner/name").text).tables.train.learning_rate == 2e-4
    assert spec(first_spec().text).tables.train.learning_rate > 2e-4


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_keeps_its_comments_and_takes_model_and_data(name: str) -> None:
    text = first_spec(name, "owner/model", "owner/data").text
    found = spec(text)
    assert (found.tables.model.path, found.tables.data.path) == ("owner/model", "owner/data")
    assert "builtin:" not in text
    assert text.splitlines()[0] == preset(name).splitlines()[0]
    if name != "module_sweep":  # which has words for a model that is not here
        assert len(found.configurations) == len(spec(preset(name)).configurations)


def placements(text: str) -> list[Any]:
    return [(c.adapter or {})["target_modules"] for c in spec(text).configurations if c.method == "lora"]


def test_words_stand_for_the_modules_of_a_model_that_is_not_here() -> None:
    assert placements(first_spec("module_sweep", "owner/model").text) == ["attention", "mlp", "all-linear"]


def test_a_preset_alone_is_the_preset() -> None:
    assert first_spec("rank_sweep").text == preset("rank_sweep")


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "a", "output": "b"},
        {"prompt": "a", "completion": "b"},
        {"question": "a", "answer": "b"},
        {"text": "a"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ],
)
def test_what_is_seen_by_the_columns_is_not_written(tmp_path: Path, row: dict[str, Any]) -> None:
    found = data_of(tmp_path, **row)
    assert (found["format"], found["columns"], found["template"]) == ("auto", {}, None)


def test_other_names_of_an_instruction_are_renamed(tmp_path: Path) -> None:
    found = data_of(tmp_path, instruction="i", context="c", response="r", category="x")
    assert (found["format"], found["columns"]) == ("auto", {"input": "context", "output": "response"})


def test_other_names_of_a_question_are_renamed(tmp_path: Path) -> None:
    found = data_of(tmp_path, Query="q", Solution="s")
    assert (found["format"], found["columns"]) == ("auto", {"question": "Query", "answer": "Solution"})


def test_a_chat_model_gets_prompts_through_its_chat_template() -> None:
    """Columns are renamed, and `format = "auto"` does the rest; a template of ours would go around the model's own."""
    rows = [{"source": "a b", "target": "c"}]
    assert detect_format(rows, "rows").template == {"prompt": "{source}\n", "completion": "{target}"}
    renamed = detect_format(rows, "rows", chats=True)
    assert (renamed.format, renamed.columns) == ("", {"prompt": "source", "completion": "target"})


def test_a_single_column_of_identifiers_is_no_text(tmp_path: Path) -> None:
    for identifier in ("3596ec5a-6d4a-4c42-b5e3-2155835576c9", 17):
        with pytest.raises(LoraError, match=r"its columns \(uid, labels\) do not show which holds questions"):
            data_of(tmp_path, uid=identifier, labels=["e", "n"])
    assert data_of(tmp_path, verse="春眠不覚暁", id_list=[1])["columns"] == {"text": "verse"}


def test_pictures_are_refused_before_a_spec_is_written(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match='the column "image" is not empty, but only text is supported'):
        data_of(tmp_path, question="who?", answer="me", image="1.jpg")


def test_a_passage_stands_before_its_question(tmp_path: Path) -> None:
    found = data_of(tmp_path, context="c", query="q", answer="a")
    assert found["template"]["prompt"] == "{context}\n\nQuestion: {query}\nAnswer:"


def test_a_text_with_a_label_is_classified(tmp_path: Path) -> None:
    found = spec(first_spec(data=write(tmp_path, {"sentence": "s", "label": 1})).text)
    assert (found.tables.data.format, found.primary) == ("auto", "accuracy")
    found = spec(first_spec(data=write(tmp_path, {"review": "s", "label": 1})).text)
    assert found.tables.data.columns == {"text": "review"}
    assert (found.tables.data.format, found.primary) == ("classification", "accuracy")


def test_passages_with_accepted_answers_are_squad_s(tmp_path: Path) -> None:
    row = {"context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}}
    found = spec(first_spec(data=write(tmp_path, row)).text)
    assert (found.tables.data.format, found.primary) == ("auto", "squad_f1")


def test_shared_conversations_and_guanaco_s_layout_are_known(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert data_of(tmp_path, conversations=turns)["format"] == "auto"
    assert data_of(tmp_path, text="### Human: q### Assistant: a")["format"] == "guanaco"


def test_a_column_that_no_template_can_name_is_renamed(tmp_path: Path) -> None:
    path = write(tmp_path, {"input": "x", "label": "y"} | {"q:1": "z"})
    assert spec(first_spec(data=path).text).tables.data.template is not None
    file = tmp_path / "odd.jsonl"
    file.write_text('{"Task": "a", "label": "b"}\n', encoding="utf-8")
    assert spec(first_spec(data=str(file)).text).tables.data.columns == {"instruction": "Task", "output": "label"}


def test_a_single_column_of_text_is_a_text(tmp_path: Path) -> None:
    found = data_of(tmp_path, lyrics="la la", id_list=[1])
    assert (found["format"], found["columns"]) == ("text", {"text": "lyrics"})


def test_messages_under_another_name_are_a_chat(tmp_path: Path) -> None:
    found = data_of(tmp_path, conversation=[{"role": "user", "content": "a"}])
    assert (found["format"], found["columns"]) == ("chat", {"messages": "conversation"})


def test_exact_match_is_for_short_answers(tmp_path: Path) -> None:
    short = write(tmp_path, {"question": "q", "answer": "42"})
    long = write(tmp_path, {"question": "q", "answer": "because " * 40}, name="long.jsonl")
    assert spec(first_spec(data=short).text).primary == "exact_match"
    assert spec(first_spec(data=long).text).primary == "log_loss"
    assert spec(first_spec("rank_sweep", data=short).text).primary == "exact_match"


def test_tables_and_directories_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("question,reply\nwho?,me\n", encoding="utf-8")
    for path in (tmp_path / "train.csv", tmp_path):
        assert spec(first_spec(data=str(path)).text).tables.data.columns == {"answer": "reply"}


@pytest.mark.parametrize("name", ['we"ird', "back\\slash", "tab\there", "del\x7f", "ünï😀", "a'b", "line\nbreak"])
def test_any_name_is_written_as_toml(name: str) -> None:
    assert spec(f"study.name = 's'\nmodel.path = 'm'\ndata.path = {toml_string(name)}").tables.data.path == name
    assert spec(first_spec(model=name).text).tables.model.path == name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no such file or directory"),
        ("", "is empty; it has no rows"),
        ("{bad", "not valid JSON"),
        ('{"ids": [1], "meta": {}}\n', r"its columns \(ids, meta\) do not show which holds questions"),
        ("3\n", "should be an object with named fields"),
    ],
)
def test_data_that_are_of_no_use_are_told_so(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "rows.jsonl"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(LoraError, match=told):
        first_spec(data=str(file))


def test_a_table_without_a_header_is_told_how_to_name_its_columns(tmp_path: Path) -> None:
    """AG News' own CSV files begin with a row."""
    row = '"3","Fears for pension","Unions representing workers at Turner Newall say they are disappointed."\n'
    (tmp_path / "rows.csv").write_text(row * 2, encoding="utf-8")
    shown = r"\(3, Fears for pension, Unions representing …appointed\.\) do not show"
    with pytest.raises(LoraError, match=shown) as told:
        first_spec(data=str(tmp_path / "rows.csv"))
    assert "for a table without a header line, set data.column_names" in str(told.value)
    text = (
        "study.name = 's'\nmodel.path = 'builtin:facts-llama'\nmodel.task_type = 'SEQ_CLS'\n"
        "data.path = 'rows.csv'\ndata.format = 'classification'\n"
    )
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"set data\.column_names"):
        Study.load(tmp_path / "study.toml", tmp_path / ".lora").plan()


def test_rows_that_hold_their_examples_in_a_list_are_told_so(tmp_path: Path) -> None:
    """As Self-Instruct's seed tasks do."""
    rows = [{"id": id_, "instances": [{"input": "", "output": "Yes."}], "instruction": "Is it?"} for id_ in "abcdef"]
    file = write(tmp_path, *rows)
    nested = "instances holds lists or objects: write one row for each example, with its texts as columns"
    with pytest.raises(LoraError, match=nested):
        first_spec(data=str(file))
    for own, told in (("", "match no known format"), ("data.format = 'alpaca'", 'has no column "output"')):
        text = f"study.name = 's'\nmodel.path = 'builtin:facts-llama'\ndata.path = '{Path(file).name}'\n{own}\n"
        (tmp_path / "study.toml").write_text(text, encoding="utf-8")
        with pytest.raises(SpecError, match=f"{told}.*{nested}"):
            Study.load(tmp_path / "study.toml", tmp_path / ".lora").plan()


def test_a_file_of_an_unknown_kind(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(LoraError, match=r"must be one of \.jsonl, \.ndjson, \.json"):
        first_spec(data=str(tmp_path / "rows.xlsx"))


# On models that are here


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from checkpoint_fixture import make_checkpoint

    root = tmp_path_factory.mktemp("models")
    for kind in ("llama", "gpt2", "mixtral", "mamba"):
        make_checkpoint(kind, root / kind)
    make_checkpoint("bert", root / "bert", encoder=True)
    make_checkpoint("llama", root / "five", num_hidden_layers=5)
    return root


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "llama",
            [
                ["q_proj", "v_proj"],
                ["k_proj", "q_proj", "v_proj"],
                ["k_proj", "o_proj", "q_proj", "v_proj"],
                ["down_proj", "gate_proj", "up_proj"],
                "all-linear",
            ],
        ),
        ("gpt2", [["c_attn"], ["attn.c_proj", "c_attn"], ["c_fc", "mlp.c_proj"], "all-linear"]),
        ("mamba", [["in_proj"]]),
    ],
)
def test_modules_are_called_as_the_model_calls_them(models: Path, kind: str, expected: list[Any]) -> None:
    assert placements(first_spec("module_sweep", str(models / kind)).text) == expected


def test_experts_are_parameters_beside_the_modules(models: Path) -> None:
    for preset_name in ("module_sweep", "placement"):
        found = spec(first_spec(preset_name, str(models / "mixtral")).text).configurations
        experts = [c.adapter["target_modules"] for c in found if c.adapter and c.adapter["target_parameters"]]
        assert experts == [[], "all-linear"]
    assert placements(first_spec("placement", str(models / "mixtral")).text)[0] == "attention", "it has no mlp"


def test_a_model_of_one_kind_of_layer_has_one_placement(models: Path) -> None:
    assert placements(first_spec("placement", str(models / "mamba")).text)[0] == "all-linear"
    modules = [
        c for c in spec(first_spec("placement", str(models / "mamba")).text).configurations if c.sweep == "modules"
    ]
    assert len(modules) == 1


def test_layers_are_counted(models: Path) -> None:
    def layers(kind: str) -> list[Any]:
        found = spec(first_spec("placement", str(models / kind)).text).configurations
        return [c.adapter["layers_to_transform"] for c in found if c.adapter and c.adapter["layers_to_transform"]]

    assert layers("five") == [[0, 1], [2], [3, 4], [0, 2, 4]]
    assert layers("llama") == [[0], [1]], "of two layers there is no middle third, and every second is the first"


@pytest.mark.parametrize("name", [None, *preset_names()])
def test_an_encoder_classifies_beside_a_trained_head(models: Path, tmp_path: Path, name: str | None) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,category\nwhere does anna live,place\nwho is tom,person\n", encoding="utf-8")
    found = spec(first_spec(name, str(models / "bert"), str(file)).text)
    assert found.tables.model.task_type == "SEQ_CLS"
    assert (found.tables.data.format, found.tables.data.columns) == ("classification", {"label": "category"})
    assert found.primary == "accuracy"
    methods = {c.method for c in found.configurations}
    assert "none" not in methods
    assert "head" in methods
    if name == "module_sweep":
        assert placements(first_spec(name, str(models / "bert"), str(file)).text) == [
            ["query", "value"],
            ["key", "query", "value"],
            ["attention.output.dense", "key", "query", "value"],
            "mlp",
            "all-linear",
        ]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"sentence1": "a", "sentence2": "b", "label": 1}, {}),
        ({"premise": "a", "hypothesis": "b", "label": 1}, {"sentence1": "premise", "sentence2": "hypothesis"}),
        ({"idx": 3, "review": "a", "sentiment": "good"}, {"text": "review", "label": "sentiment"}),
    ],
)
def test_texts_and_classes_are_found(
    models: Path, tmp_path: Path, row: dict[str, Any], columns: dict[str, str]
) -> None:
    found = spec(first_spec(None, str(models / "bert"), write(tmp_path, row)).text)
    assert found.tables.data.columns == columns


def test_fractions_are_predicted(models: Path, tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": score} for score in (2.5, 4.0)]
    found = spec(first_spec(None, str(models / "bert"), write(tmp_path, *rows)).text)
    assert found.tables.model.num_labels == 1
    assert found.tables.data.columns == {"label": "score"}
    assert found.primary == "pearson"


def test_an_encoder_without_classes_is_told(models: Path, tmp_path: Path) -> None:
    data = write(tmp_path, {"question": "q", "answer": "a"})
    with pytest.raises(ModelError, match="do not show which holds the text and which the class") as caught:
        first_spec(None, str(models / "bert"), data)
    assert caught.value.exit_code == 3
    with pytest.raises(ModelError, match="Pass data with classes to --data"):
        first_spec(None, str(models / "bert"))


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "mamba", "bert"])
def test_what_is_written_can_be_planned(models: Path, tmp_path: Path, kind: str) -> None:
    row = {"text": "who is tom", "category": "person"} if kind == "bert" else {"question": "who", "answer": "tom"}
    data = write(tmp_path, *[row, {**row, "category": "place"}] * 10)
    for name in ("module_sweep", "placement"):
        file = tmp_path / f"{name}.toml"
        file.write_text(first_spec(name, str(models / kind), data).text, encoding="utf-8")
        assert Study.load(file, tmp_path / "state").plan().work


def test_without_the_libraries_words_stand_for_modules(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafile.study.init.can_describe", lambda: False)
    assert placements(first_spec("module_sweep", str(models / "gpt2")).text) == ["attention", "mlp", "all-linear"]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="there is no such directory"):
        first_spec(model="./nowhere")
    with pytest.raises(LoraError, match=r"has no config\.json"):
        first_spec(model=str(tmp_path))


def test_what_was_guessed_is_said_with_the_reason(tmp_path: Path) -> None:
    short = first_spec(data=write(tmp_path, {"question": "q?", "answer": "four"}))
    assert [guess.split(" has the columns ")[-1] for guess in short.guesses] == [
        'question and answer. Detected: format = "question".',
        "Primary metric: exact_match, because answers have 4 characters (median), short enough to match word for word.",
    ]
    choices = first_spec(data=write(tmp_path, {"question": "q?", "choices": ["a", "b"], "answer": 1, "id": 7}))
    assert choices.guesses[0].endswith('Detected: format = "question". Not read: choices and id.')
    assert "because answers have 1 character (median)" in choices.guesses[1]
    both = first_spec(data=write(tmp_path, {"instruction": "q?", "response": "five", "target": "four"}))
    assert 'Not read: target. If target is the answer, set data.columns.output = "target".' in both.guesses[0]
    turns = {"prompt": [{"role": "user", "content": "q?"}], "completion": [{"role": "assistant", "content": "four"}]}
    assert "because answers have 4 characters (median)" in first_spec(data=write(tmp_path, turns)).guesses[1]
    classes = first_spec(data=write(tmp_path, {"text": "my card is lost", "category": "lost_card"}))
    assert 'columns = { label = "category" }' in classes.guesses[0], "auto would have left the classes out"
    assert spec(classes.text).primary == "accuracy"
    assert "is not on this machine" in first_spec(data="owner/rows").guesses[0]
    assert first_spec().guesses == ()


@pytest.mark.parametrize("name", [None, *preset_names()])
def test_a_first_study_has_a_margin_in_its_metrics_unit(name: str | None, tmp_path: Path) -> None:
    answers = {"one word": "1pt", "several sentences " * 20: "1%"}
    for answer, margin in answers.items():
        text = first_spec(name, data=write(tmp_path, {"question": "q?", "answer": answer})).text
        assert spec(text).tables.verdict.margin == margin
