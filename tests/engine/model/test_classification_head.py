"""Classification heads: trained and saved with the adapter, drawn from the seed, read at the end of each text."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import LORA, MODEL, Engine  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.errors import LoraError, SpecError  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.specs.tables.quantizations import quantization_settings  # noqa: E402

NAMES = ["negative", "positive", "neither"]
HEAD = {**MODEL, "task_type": "SEQ_CLS", "labels": NAMES, "head": "new"}
DATA = {"format": "classification", "labels": [["0", "negative"], ["1", "positive"], ["2", "neither"]]}


@pytest.fixture(scope="module")
def classes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences whose first word tells their class, in the layout of SST-2."""
    words = ["paris", "rome", "oslo"]
    rows = [
        {"sentence": f"{words[n % 3]} is where anna number {n} lives ." + " yes" * (n % 5), "label": n % 3}
        for n in range(60)
    ]
    file = tmp_path_factory.mktemp("data") / "classes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


class Heads(Engine):
    """An engine whose model has a head of three classes."""

    quantization: str = "none"
    model_settings: dict[str, Any] = HEAD

    def run(self, kind: str, settings: dict[str, Any], *rest: Any, **execution: Any) -> Any:
        chosen = {"model": self.model_settings, "quantization": quantization_settings(self.quantization)}
        return super().run(kind, {**settings, **chosen}, *rest, **execution)

    def prepared(self, stop: int = 30, **data: Any) -> dict[str, str]:
        return self.prepare(stop, **DATA, task_type="SEQ_CLS", max_length=64, **data)

    def choices(self, prepared: dict[str, str], adapter: dict[str, str] | None, size: int = 4) -> list[dict[str, Any]]:
        return self.predict(prepared, adapter, "choice", size)


@pytest.fixture
def engine(tiny_model: Path, classes_file: Path, tmp_path: Path) -> Heads:
    return Heads(tiny_model, classes_file, tmp_path)


def right(rows: list[dict[str, Any]]) -> float:
    return sum(row["answer"] == row["reference"] for row in rows) / len(rows)


@pytest.mark.parametrize("adapter", [LORA, {"method": "full"}], ids=["lora", "full"])
def test_a_head_learns_what_it_is_shown(engine: Heads, adapter: dict[str, Any]) -> None:
    prepared = engine.prepared()
    done, files = engine.train(prepared, adapter, max_steps=40, learning_rate=5e-3)
    assert done.outcome == "done", done.message
    rows = engine.choices(prepared, files)
    assert right(rows) > 0.9
    assert rows[0].keys() == {"row", "reference", "answer", "scores"}
    for row in rows:
        assert sum(torch.tensor(list(row["scores"].values())).exp()).item() == pytest.approx(1, abs=1e-6)
        assert row["answer"] == max(NAMES, key=row["scores"].__getitem__)


@pytest.mark.parametrize("quantization", ["none", "nf4", "hqq4", "torchao-int8"])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21's own
def test_a_trained_head_loads_in_plain_peft_with_equal_scores(engine: Heads, quantization: str) -> None:
    """The base through transformers alone where it can be, tokens straight from the tokenizer, no batch."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from lorafile.engine.model.base import load_base

    engine.quantization = quantization
    prepared = engine.prepared()
    done, files = engine.train(prepared, max_steps=8)
    assert done.outcome == "done", done.message
    ours = engine.choices(prepared, files, size=1)
    if quantization == "none":
        base = AutoModelForSequenceClassification.from_pretrained(engine.model, num_labels=3, pad_token_id=3)
    else:
        chosen = {"model": HEAD, "quantization": quantization_settings(quantization)}
        base = load_base(chosen, {"model": str(engine.model)}).model
    plain = PeftModel.from_pretrained(base, str(Path(files["adapter_model.safetensors"]).parent)).eval()
    tokenizer = AutoTokenizer.from_pretrained(engine.model)
    texts = [json.loads(line)["sentence"] for line in engine.rows.read_text(encoding="utf-8").splitlines()]
    for row in ours:
        with torch.no_grad():
            theirs = plain(**_without_types(tokenizer(texts[row["row"]], return_tensors="pt"))).logits
        expected = dict(zip(NAMES, theirs[0].double().log_softmax(-1).tolist(), strict=True))
        assert row["scores"] == pytest.approx(expected, abs=1e-4)
    config = json.loads(Path(files["adapter_config.json"]).read_text(encoding="utf-8"))
    assert config["task_type"] == "SEQ_CLS"
    assert "score" in config["modules_to_save"]


def _without_types(inputs: Any) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if key in ("input_ids", "attention_mask")}


def test_scores_do_not_depend_on_the_batch(engine: Heads) -> None:
    prepared = engine.prepared()
    _, files = engine.train(prepared)
    for one, other in zip(engine.choices(prepared, files, 1), engine.choices(prepared, files, 16), strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_the_loss_is_transformers_own(engine: Heads) -> None:
    from lorafile.engine.batching.batches import collate
    from lorafile.engine.model.base import load_base
    from lorafile.engine.model.loss import summed_loss

    tokens = Tokens.load(engine.prepared()["tokens.safetensors"]).texts(torch.arange(30) % 3)
    model = load_base({"model": HEAD, "quantization": None}, {"model": str(engine.model)}).model
    batch = collate(tokens, list(range(8)), 3, torch.device("cpu"))
    theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert (summed_loss(model, batch) / batch.targets).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_accumulation_is_normalised_by_examples(engine: Heads) -> None:
    """Fourteen examples, in one batch and in batches of 4: the last one is smaller, and still each counts once."""
    from safetensors.torch import load_file

    prepared = engine.prepared(14)
    whole = load_file(
        engine.train(prepared, max_steps=1, per_device_train_batch_size=14)[1]["adapter_model.safetensors"]
    )
    _, files = engine.train(prepared, max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    parts = load_file(files["adapter_model.safetensors"])
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_head_is_drawn_from_the_seed_and_never_from_another_run(engine: Heads) -> None:
    from safetensors.torch import load_file

    prepared = engine.prepared()

    def head(seed: int) -> Any:
        done, files = engine.train(prepared, seed=seed, max_steps=1, learning_rate=1e-12)
        assert done.outcome == "done", done.message
        return next(value for key, value in load_file(files["adapter_model.safetensors"]).items() if "score" in key)

    first, other, again = head(1), head(2), head(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(0.02, rel=0.2), "transformers' own spread"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_head_is_float32_over_a_half_precision_base(engine: Heads, dtype: str) -> None:
    from safetensors.torch import load_file

    engine.model_settings = {**HEAD, "dtype": dtype}
    prepared = engine.prepared()
    done, files = engine.train(prepared, max_steps=30, learning_rate=5e-3)
    assert done.outcome == "done", done.message
    assert {tensor.dtype for tensor in load_file(files["adapter_model.safetensors"]).values()} == {torch.float32}
    assert right(engine.choices(prepared, files)) > 0.7


def test_a_text_of_nothing_is_told(engine: Heads, tmp_path: Path) -> None:
    engine.rows = tmp_path / "rows.jsonl"
    rows = [{"text": "paris", "label": 0}, {"text": "", "label": 1}, {"text": "oslo", "label": 2}]
    engine.rows.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done, _ = engine.train(engine.prepared(3))
    assert done.message == "data: row 1 has no text for the classification head."


def test_a_text_that_ends_in_padding_is_told(engine: Heads, tmp_path: Path) -> None:
    """transformers looks for the last token that is not padding, and would read such a text one token too early."""
    from transformers import AutoTokenizer

    engine.rows = tmp_path / "rows.jsonl"
    padding = AutoTokenizer.from_pretrained(engine.model).pad_token
    rows = [{"text": text, "label": n} for n, text in enumerate(("paris", f"rome {padding}", "oslo"))]
    engine.rows.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done, _ = engine.train(engine.prepared(3))
    assert done.message == "data: a text ends with the padding token, so the head cannot find its end."


def test_a_profile_of_a_head_has_no_generation(engine: Heads) -> None:
    protocol = {"warmup_steps": 1, "steps": 2, "new_tokens": 3, "repeats": 2}
    training = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "bf16": False, "fp16": False}
    settings = {"adapter": LORA, "training": {**training, "gradient_checkpointing": False}, "profile": protocol}
    done, _ = engine.run("profile", settings, {"train": engine.prepared()})
    assert done.outcome == "done", done.message
    assert done.figures["train_step_seconds"] > 0 < done.figures["evaluate_tokens_per_second"]
    assert not [name for name in done.figures if "generate" in name or "token_seconds" in name]


# As studies

SPEC = """
[study]
name = "heads"
seeds = [1]
[model]
path = "{model}"
task_type = "SEQ_CLS"
[data]
path = "{data}"
max_length = 64
split = {{ train = 40, validation = 10, test = 10 }}
labels = {{ "0" = "negative", "1" = "positive", "2" = "neither" }}
[train]
max_steps = 40
learning_rate = 5e-3
[evaluate]
metrics = {metrics}
[profile]
enabled = false
{more}
"""


def study(tmp_path: Path, model: Path, data: Path, more: str = "", metrics: str = '["accuracy", "log_loss"]') -> Study:
    file = tmp_path / "study.toml"
    file.write_text(SPEC.format(model=model, data=data, more=more, metrics=metrics), encoding="utf-8")
    return Study.load(file, tmp_path / "state")


def test_a_study_of_a_head_from_plan_to_results(tiny_model: Path, classes_file: Path, tmp_path: Path) -> None:
    found = study(tmp_path, tiny_model, classes_file, "[[sweep]]\nmethod = ['lora', 'full']")
    applied = found.apply(workers=1)
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []
    accuracy = found.gather().runs
    assert set(accuracy["configuration"]) == {"method/method=lora", "method/method=full"}


def test_a_new_head_without_training_is_refused(tiny_model: Path, classes_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="its head would be random"):
        study(tmp_path, tiny_model, classes_file, "[[sweep]]\nmethod = ['none', 'lora']").plan()


def test_a_head_can_be_looked_into_and_truncated(tiny_model: Path, classes_file: Path, tmp_path: Path) -> None:
    found = study(tmp_path, tiny_model, classes_file, "[inspect]\n[truncate]\nranks = [4]\n")
    applied = found.apply(workers=1)
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []
    assert {"inspect", "truncate"} <= {attempt.kind for attempt in applied.attempts}


def test_metrics_of_text_are_refused(tiny_model: Path, classes_file: Path, tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="generates no text"):
        study(tmp_path, tiny_model, classes_file, metrics='["exact_match"]').plan()


def test_data_without_classes_are_refused(tiny_model: Path, rows_file: Path, tmp_path: Path) -> None:
    text = SPEC.format(model=tiny_model, data=rows_file, more="", metrics='["log_loss"]')
    file = tmp_path / "study.toml"
    file.write_text("\n".join(line for line in text.splitlines() if "labels" not in line), encoding="utf-8")
    with pytest.raises(LoraError, match="needs data with classes"):
        Study.load(file, tmp_path / "state").plan()


def test_a_checkpoint_that_classifies_keeps_its_head(tiny_model: Path, classes_file: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    where = tmp_path / "classifier"
    order = ["positive", "negative", "neither"]
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, num_labels=3, id2label=dict(enumerate(order)), label2id={name: n for n, name in enumerate(order)}
    )
    model.save_pretrained(where)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(where)
    found = study(tmp_path, where, classes_file, "[[sweep]]\nmethod = ['none', 'lora']")
    sections = found.plan().graph.sections["method/method=none"]["model"]
    assert (sections["head"], sections["labels"]) == ("own", order)
    applied = found.apply(workers=1)
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []
    untuned = next(a for a in applied.attempts if a.address == "method/method=none:predict/test/choice")
    from lorafile.state import State

    objects = State.read(tmp_path / "state").objects
    rows = list(read_lines(objects.path(untuned.outputs["predictions.jsonl.gz"])))
    tokenizer = AutoTokenizer.from_pretrained(where)
    texts = [json.loads(line)["sentence"] for line in classes_file.read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        theirs = model(**_without_types(tokenizer(texts[rows[0]["row"]], return_tensors="pt"))).logits
    assert rows[0]["scores"] == pytest.approx(
        dict(zip(order, theirs[0].log_softmax(-1).tolist(), strict=True)), abs=1e-4
    )
    other = SPEC.format(model=where, data=classes_file, more="", metrics='["accuracy"]').replace("neither", "neutral")
    file = tmp_path / "other.toml"
    file.write_text(other, encoding="utf-8")
    with pytest.raises(SpecError, match="give them the same names"):
        Study.load(file, tmp_path / "state").plan()
