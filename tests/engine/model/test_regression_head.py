"""Regression: a head of one output, whose number is trained by its squared error and compared by correlations."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from engine_fixture import LORA, MODEL, Engine  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.analysis.registry import analyses  # noqa: E402
from lorafile.cli.main import main  # noqa: E402
from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.engine.metrics.registry import more_is_better, unit_of  # noqa: E402
from lorafile.engine.training.curve import Curve  # noqa: E402
from lorafile.errors import LoraError, SpecError  # noqa: E402

WORDS = ["paris", "rome", "oslo", "bern", "lima"]
HEAD = {**MODEL, "task_type": "SEQ_CLS", "num_labels": 1, "head": "new"}
DATA = {"format": "classification", "num_labels": 1, "task_type": "SEQ_CLS", "max_length": 64}
TRAINING = {"max_steps": 100, "learning_rate": 1e-2, "per_device_train_batch_size": 16}


def pairs(n: int = 60) -> list[dict[str, Any]]:
    """Pairs of sentences in the layout of STS-B: how many words they share decides their score from 0 to 5."""
    noise = random.Random(3)
    rows = []
    for number in range(n):
        first = noise.choices(WORDS, k=4)
        shared = number % 5
        second = first[:shared] + ["yes"] * (4 - shared)
        score = shared * 1.2 + noise.choice([0.0, 0.15])
        rows.append({"sentence1": " ".join(first), "sentence2": " ".join(second), "label": round(score, 2)})
    return rows


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def scores_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "scores.jsonl", pairs())


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers, whose tokenizer tells the sentences of a pair apart."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    where = tmp_path_factory.mktemp("models") / "encoder"
    where.mkdir()
    vocabulary = where / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", *WORDS]), encoding="utf-8")
    tokenizer = BertTokenizerFast(str(vocabulary), model_max_length=64)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(  # with a wide range a frozen model tells texts apart
        vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=0, initializer_range=0.3, **shape
    )
    BertModel(config).save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


class Regressions(Engine):
    """An engine whose model predicts a number."""

    model_settings: dict[str, Any] = HEAD

    def run(self, kind: str, settings: dict[str, Any], *rest: Any, **execution: Any) -> Any:
        return super().run(kind, {**settings, "model": self.model_settings, "quantization": None}, *rest, **execution)

    def prepared(self, stop: int = 30) -> dict[str, str]:
        return self.prepare(stop, **DATA)

    def numbers(self, prepared: dict[str, str], adapter: dict[str, str] | None, size: int = 4) -> list[dict[str, Any]]:
        return self.predict(prepared, adapter, "regression", size)


ENCODER_LORA = {**LORA, "target_modules": ["query", "value"]}


@pytest.fixture(params=["decoder", "encoder"])
def engine(request: pytest.FixtureRequest, scores_file: Path, tmp_path: Path) -> Regressions:
    model = request.getfixturevalue("tiny_model" if request.param == "decoder" else "tiny_encoder")
    return Regressions(model, scores_file, tmp_path)


def lora_of(engine: Engine) -> dict[str, Any]:
    return ENCODER_LORA if engine.model.name == "encoder" else LORA


def error_of(rows: list[dict[str, Any]]) -> float:
    return sum((row["answer"] - row["reference"]) ** 2 for row in rows) / len(rows)


def inputs_of(engine: Engine, row: dict[str, Any]) -> dict[str, Any]:
    """Return what plain transformers would be given of a row."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(engine.model)
    two = engine.model.name == "encoder"
    pair = [row["sentence1"], row["sentence2"]] if two else [f"{row['sentence1']}\n{row['sentence2']}"]
    inputs = tokenizer(*pair, return_tensors="pt")
    return {key: value for key, value in inputs.items() if two or key != "token_type_ids"}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_number_is_learned_and_predicted_as_one(engine: Regressions, method: str) -> None:
    prepared = engine.prepared()
    adapter = lora_of(engine) if method == "lora" else {"method": "full"}
    done, files = engine.train(prepared, adapter, **TRAINING)
    assert done.outcome == "done", done.message
    rows = engine.numbers(prepared, files)
    assert rows[0].keys() == {"row", "reference", "answer"}
    assert [row["reference"] for row in rows] == [row["label"] for row in pairs()[:30]]
    mean = sum(row["reference"] for row in rows) / len(rows)
    assert error_of(rows) < 0.3 * error_of([row | {"answer": mean} for row in rows])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21's own
def test_a_regression_loads_in_plain_peft_with_equal_numbers(engine: Regressions) -> None:
    """The base through transformers alone, tokens straight from the tokenizer, no batch."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    prepared = engine.prepared()
    done, files = engine.train(prepared, lora_of(engine), **{**TRAINING, "max_steps": 8})
    assert done.outcome == "done", done.message
    padding = {} if engine.model.name == "encoder" else {"pad_token_id": 3}
    base = AutoModelForSequenceClassification.from_pretrained(engine.model, num_labels=1, **padding)
    plain = PeftModel.from_pretrained(base, str(Path(files["adapter_model.safetensors"]).parent)).eval()
    for row in engine.numbers(prepared, files, size=4):
        with torch.no_grad():
            theirs = plain(**inputs_of(engine, pairs()[row["row"]])).logits
        assert theirs.shape == (1, 1)
        assert row["answer"] == pytest.approx(theirs.item(), abs=1e-5)


def test_a_fine_tuned_model_says_that_it_is_a_regression(engine: Regressions) -> None:
    from transformers import AutoModelForSequenceClassification

    prepared = engine.prepared()
    done, files = engine.train(prepared, {"method": "full"}, **{**TRAINING, "max_steps": 4})
    assert done.outcome == "done", done.message
    plain = AutoModelForSequenceClassification.from_pretrained(Path(files["config.json"]).parent).eval()
    assert (plain.config.num_labels, plain.config.problem_type) == (1, "regression")
    row = engine.numbers(prepared, files)[0]
    with torch.no_grad():
        assert row["answer"] == pytest.approx(plain(**inputs_of(engine, pairs()[0])).logits.item(), abs=1e-5)


def test_the_loss_is_transformers_own(engine: Regressions) -> None:
    from lorafile.engine.model.base import load_base
    from lorafile.engine.model.head import load_tokens
    from lorafile.engine.model.loss import summed_loss
    from lorafile.engine.request import Request

    settings, paths = {"model": HEAD, "quantization": None}, {"model": str(engine.model)}
    request = Request("key", "train", "address", settings, paths, {"train": engine.prepared()}, {}, {})
    base = load_base(settings, paths)
    batch = base.collate(load_tokens(request, "train"), list(range(8)))
    types = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
    theirs = base.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels, **types
    ).loss
    assert (summed_loss(base.model, batch) / batch.targets).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_merging_says_how_far_a_number_moves(engine: Regressions) -> None:
    prepared = engine.prepared()
    _, files = engine.train(prepared, lora_of(engine), **TRAINING)
    figures = {}
    for dtype in ("float32", "bfloat16"):
        settings = {"merging": {"dtype": dtype, "examples": 6}}
        done, _ = engine.run("merge", settings, {"adapter": files, "data": prepared})
        assert done.outcome == "done", done.message
        figures[dtype] = done.figures
    assert figures["float32"].keys() == {"tokens", "finite", "max_logit_difference", "mean_logit_difference"}
    assert figures["float32"]["max_logit_difference"] < 1e-4 < figures["bfloat16"]["max_logit_difference"]


def test_a_loss_that_begins_low_may_rise_to_that_of_a_blind_guess(engine: Regressions) -> None:
    """A first batch that is right by chance is no reason to call what follows divergence."""
    from lorafile.engine.model.head import blind_loss

    labels = torch.tensor([1.0, 3.0])
    tokens = Tokens.load(engine.prepared(2)["tokens.safetensors"]).texts(labels)
    blind = blind_loss(tokens, 1)
    assert blind == pytest.approx(5.0)
    rows = [{"step": n, "loss": 0.1 if n == 1 else 4.0, "grad_norm": 1.0} for n in range(1, 22)]
    training = {"fp16": False, "learning_rate": 0.5}
    assert not Curve(rows).diverged(blind, training, "float32")
    higher = [{**row, "loss": 6.0} for row in rows[1:]]
    assert "above that of a blind guess" in Curve([rows[0], *higher]).diverged(blind, training, "float32")


# As studies

SPEC = """
[study]
name = "scores"
seeds = [1, 2]
[model]
path = "{model}"
task_type = "SEQ_CLS"
num_labels = 1
[data]
path = "{data}"
max_length = 64
split = {{ train = 30, validation = 15, test = 15 }}
[train]
max_steps = 40
learning_rate = 5e-3
[profile]
enabled = false
{more}
"""


def study(tmp_path: Path, model: Path, data: Path, more: str = "", *changes: tuple[str, str]) -> Study:
    text = SPEC.format(model=model, data=data, more=more)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "study.toml"
    file.write_text(text, encoding="utf-8")
    return Study.load(file, tmp_path / "state")


WHOLE = """
[lora]
target_modules = "all-linear"
[inspect]
[truncate]
ranks = [2]
[merge]
dtypes = ["float32"]
max_logit_difference = 0.01
[verdict]
margin = 0.05
[evaluate]
metrics = ["pearson", "spearman", "mse"]
[[sweep]]
name = "rank"
lora.r = [2, 4]
[[analysis]]
kind = "compare"
factor = "lora.r"
"""


@pytest.mark.parametrize("kind", ["tiny_model", "tiny_encoder"])
def test_a_study_of_numbers_from_plan_to_report(
    kind: str, scores_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found = study(tmp_path, request.getfixturevalue(kind), scores_file, WHOLE)
    applied = found.apply(workers=1)
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []
    assert {"inspect", "truncate", "merge"} <= {attempt.kind for attempt in applied.attempts}
    results = found.gather()
    listed = {str(name): (unit_of(name), more_is_better(name)) for name in results.metrics}
    assert listed == {
        "pearson": ("correlation, −1 to 1", True),
        "spearman": ("correlation, −1 to 1", True),
        "mse": ("squared units of the label", False),
    }
    outcomes = results.outcomes["rank/r=4", 1, "test"]
    assert {"pearson.influence", "spearman.influence", "mse"} <= {*outcomes.columns}
    assert outcomes["pearson.influence"].mean() == pytest.approx(
        results.runs.set_index(["configuration", "seed"]).loc[("rank/r=4", 1), "test.pearson"], abs=0.1
    )
    assert all(results.merges["passes"])
    merging = next(analysis for analysis in analyses(results, []) if analysis.kind == "merge")
    assert "a predicted number changes by" in " ".join(merging.sentences)
    found.report(tmp_path / "report")
    text = (tmp_path / "report" / "RESULTS.md").read_text(encoding="utf-8")
    assert "pearson" in text
    assert "squared units of the label" in text
    assert found.plan().work == []


def test_a_regression_has_metrics_of_its_own(tiny_model: Path, scores_file: Path, tmp_path: Path) -> None:
    plan = study(tmp_path, tiny_model, scores_file).plan()
    score = next(node for node in plan.graph.nodes.values() if node.kind == "score")
    assert set(score.settings["metrics"]) == {"pearson", "mse"}
    assert plan.graph.sections["lora"]["model"]["num_labels"] == 1
    assert "labels" not in plan.graph.sections["lora"]["model"]


@pytest.mark.parametrize(
    ("change", "more", "told"),
    [
        (
            ("max_steps", "max_steps"),
            'metrics = ["accuracy"]',
            "accuracy does not apply to numbers, which model.num_labels = 1",
        ),
        (("max_steps", "max_steps"), 'metrics = ["log_loss"]', "metrics[0]: log_loss does not apply to numbers"),
        (("num_labels = 1\n", ""), 'metrics = ["mse"]', "mse needs numbers: model.num_labels = 1"),
        (('task_type = "SEQ_CLS"\nnum_labels = 1\n', ""), 'metrics = ["pearson"]', "pearson needs numbers"),
        (
            ('task_type = "SEQ_CLS"\n', ""),
            "",
            "model.num_labels: applies to a classification head, and a text-generating model has none",
        ),
        (("max_length", 'labels = { "0" = "no", "1" = "yes" }\nmax_length'), "", "data.labels: names classes"),
        (
            ("[train]", "[merge]\n[train]"),
            "",
            "set merge.max_logit_difference to the largest acceptable change",
        ),
        (("[train]", '[verdict]\nmargin = "1pt"\n[train]'), "", "pearson is not a percentage"),
    ],
)
def test_what_numbers_do_not_have_is_refused_where_it_stands(
    tiny_model: Path, scores_file: Path, tmp_path: Path, change: tuple[str, str], more: str, told: str
) -> None:
    with pytest.raises(SpecError) as error:
        study(tmp_path, tiny_model, scores_file, f"[evaluate]\n{more}" if more else "", change)
    assert told in str(error.value)


def test_metrics_are_checked_where_the_task_varies(tiny_model: Path, scores_file: Path, tmp_path: Path) -> None:
    varied = "[evaluate]\nmetrics = ['accuracy']\n[[sweep]]\nmodel.num_labels = [1]"
    with pytest.raises(SpecError, match="accuracy does not apply to numbers"):
        study(tmp_path, tiny_model, scores_file, varied, ("num_labels = 1\n", "")).plan()


@pytest.mark.parametrize("task", ['task_type = "SEQ_CLS"\n', ""])
def test_fractions_are_no_classes(tiny_model: Path, scores_file: Path, tmp_path: Path, task: str) -> None:
    removed = ('task_type = "SEQ_CLS"\nnum_labels = 1\n', task)
    with pytest.raises(SpecError) as error:
        study(tmp_path, tiny_model, scores_file, "[evaluate]\nmetrics = ['accuracy']", removed).plan()
    assert '"0.15" is not a whole number' in str(error.value)
    assert "model.num_labels = 1" in str(error.value)


def test_whole_numbers_stay_classes_however_they_are_written(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"text": f"rome {n}", "label": float(n % 3)} for n in range(60)]
    whole = written(tmp_path / "whole.jsonl", rows)
    found = study(tmp_path, tiny_model, whole, "", ("num_labels = 1\n", "")).plan()
    assert found.graph.sections["lora"]["model"]["labels"] == ["0", "1", "2"]
    said = study(tmp_path, tiny_model, whole, "", ("num_labels = 1\n", "num_labels = 3\n")).plan()
    assert said.graph.nodes.keys() == found.graph.nodes.keys(), "the same keys"
    with pytest.raises(SpecError, match=r"model\.num_labels: 4 is neither 1, which predicts numbers, nor the number"):
        study(tmp_path, tiny_model, whole, "", ("num_labels = 1\n", "num_labels = 4\n")).plan()


def test_fractions_that_the_spec_names_are_classes(tiny_model: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "halves.jsonl", [{"text": f"rome {n}", "label": n % 2 / 2} for n in range(60)])
    named = 'labels = { "0" = "none", "0.5" = "half" }\nmax_length'
    found = study(tmp_path, tiny_model, file, "", ("num_labels = 1\n", ""), ("max_length", named)).plan()
    assert found.graph.sections["lora"]["model"]["labels"] == ["none", "half"]


def test_labels_that_are_no_numbers_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    rows = pairs()
    rows[7]["label"] = "high"
    with pytest.raises(
        SpecError, match=r'model\.num_labels: 1 predicts numbers, but the label column "label" contains "hi'
    ):
        study(tmp_path, tiny_model, written(tmp_path / "words.jsonl", rows)).plan()


def test_a_split_whose_scores_are_hidden_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """GLUE's STS-B has −1 in place of every score of its test set."""
    data = tmp_path / "data"
    data.mkdir()
    written(data / "train.jsonl", pairs(40))
    written(data / "test.jsonl", [{**row, "label": -1.0} for row in pairs(10)])
    split = (
        "split = { train = 30, validation = 15, test = 15 }",
        'split = { train = 20, validation = 10, test = "test" }',
    )
    with pytest.raises(SpecError, match=r"test draws from test, which has no labels \(\"label\" is all -1 there\)"):
        study(tmp_path, tiny_model, data, "", split).plan()


def test_more_different_numbers_than_there_can_be_classes(tiny_model: Path, tmp_path: Path) -> None:
    """Their values stand in no lock, so that a label that is no number is told by `prepare`, with its row."""
    rows = [{"text": f"rome {n % 7}", "label": n / 1000} for n in range(1200)]
    file = written(tmp_path / "many.jsonl", rows)
    classes = study(tmp_path, tiny_model, file, "", ("num_labels = 1\n", ""))
    with pytest.raises(
        SpecError, match=r"too many values to be classes; to predict them as numbers, set model\.num_labels"
    ):
        classes.plan()
    applied = study(tmp_path, tiny_model, file).apply(workers=1)
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []
    written(file, [{**row, "label": "high" if n == 1100 else row["label"]} for n, row in enumerate(rows)])
    every = (
        "split = { train = 30, validation = 15, test = 15 }",
        "split = { train = 1000, validation = 100, test = 100 }",
    )
    applied = study(tmp_path, tiny_model, file, "", every).apply(workers=1)
    messages = {attempt.message for attempt in applied.attempts if attempt.outcome == "failed"}
    assert messages == {'model.num_labels: 1 predicts numbers, but the label "high" is not a number (row 1100).'}


def test_numbers_may_be_written_as_text(tiny_model: Path, tmp_path: Path) -> None:
    lines = "".join(f"{row['sentence1']}\t{row['sentence2']}\t{row['label']}\n" for row in pairs())
    file = tmp_path / "scores.tsv"
    file.write_text(f"sentence1\tsentence2\tscore\n{lines}", encoding="utf-8")
    named = ("max_length", 'format = "classification"\ncolumns = { label = "score" }\nmax_length')
    applied = study(tmp_path, tiny_model, file, "", named).apply(workers=1)
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []


def test_a_checkpoint_that_predicts_numbers_keeps_its_head(
    tiny_encoder: Path, scores_file: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for outputs in (1, 3):
        where = tmp_path / str(outputs)
        torch.manual_seed(5)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=outputs)
        model.save_pretrained(where)
        AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(where)
    found = study(tmp_path, tmp_path / "1", scores_file, "[[sweep]]\nmethod = ['none', 'lora']")
    assert found.plan().graph.sections["method/method=none"]["model"]["head"] == "own"
    applied = found.apply(workers=1)
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []
    with pytest.raises(LoraError, match="has a head with 3 classes, which predicts no number"):
        study(tmp_path, tmp_path / "3", scores_file).plan()
    with pytest.raises(SpecError, match="its head would be random"):
        study(tmp_path, tiny_encoder, scores_file, "[[sweep]]\nmethod = ['none', 'lora']").plan()


def test_a_word_of_the_spec_is_explained_once_however_methods_name_modules(
    tmp_path: Path, scores_file: Path, tiny_encoder: Path
) -> None:
    """IA³ names a feed-forward output apart from that of the attention; the modules are the same."""
    words = "[lora]\ntarget_modules = 'all-linear'\n[ia3]\ntarget_modules = 'all-linear'\n"
    listed = "[[sweep]]\nname = 'listed'\nlora.target_modules = [['query'], ['value']]"
    sweep = f"{words}[[sweep]]\nmethod = ['lora', 'ia3']\n{listed}"
    mine = study(tmp_path, tiny_encoder, scores_file, sweep)
    told = CliRunner().invoke(main, ["plan", str(mine.spec.file), "--state", str(tmp_path / "state")]).output
    lines = [line for line in told.splitlines() if line.startswith("all-linear here")]
    assert lines == ["all-linear here: intermediate.dense, key, output.dense, query, value"]
