"""`method = "head"`: a classification head is trained alone, on an encoder that stays as it is (linear probing)."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import MODEL, Engine  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.errors import SpecError  # noqa: E402
from lorafile.models.export import ExportOptions, export  # noqa: E402
from lorafile.state import State  # noqa: E402

NAMES = ["a", "b", "c"]
CLASSIFIES = {"model": {**MODEL, "task_type": "SEQ_CLS", "labels": NAMES, "head": "new"}, "quantization": None}
ROWS = 24


@pytest.fixture(scope="module")
def encoder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers without dropout, as published: with a head for masked tokens, and no other."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    where = tmp_path_factory.mktemp("models") / "encoder"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.3,  # so that what a random encoder says of a text depends on its words
    )
    BertForMaskedLM(config).save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of different lengths whose first word tells their class."""
    words = ["paris", "rome", "oslo"]
    rows = [{"text": f"{words[n % 3]} is here ." + " yes" * (n % 5), "label": NAMES[n % 3]} for n in range(60)]
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


class Heads(Engine):
    """An engine whose model is an encoder with a new head."""

    def run(self, kind: str, settings: dict[str, Any], *rest: Any, **execution: Any) -> Any:
        return super().run(kind, {**settings, **CLASSIFIES}, *rest, **execution)

    def prepared(self) -> dict[str, str]:
        labels = [[name, name] for name in NAMES]
        return self.prepare(ROWS, format="classification", labels=labels, task_type="SEQ_CLS")

    def trained(self, prepared: dict[str, str], **train: Any) -> dict[str, str]:
        options = {"per_device_train_batch_size": ROWS, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, **train}
        done, files = self.train(prepared, {"method": "head"}, **options)
        assert done.outcome == "done", done.message
        return files


@pytest.fixture
def engine(encoder: Path, texts: Path, tmp_path: Path) -> Heads:
    return Heads(encoder, texts, tmp_path)


def test_scores_are_a_plain_loop_s_and_the_base_stays(engine: Heads) -> None:
    """The head begins as a run that learns nothing left it; transformers' model, torch's AdamW, whole batches."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    prepared = engine.prepared()
    start = load_file(engine.trained(prepared, max_steps=1, learning_rate=1e-12)["adapter_model.safetensors"])
    base = engine.bases.get({**CLASSIFIES}, {"model": str(engine.model)})
    before = base.fingerprint
    files = engine.trained(prepared, max_steps=20, learning_rate=1e-2)
    assert engine.bases.get({**CLASSIFIES}, {"model": str(engine.model)}) is base
    assert base.take_fingerprint() == before
    ours = engine.predict(prepared, files, "choice")

    model = AutoModelForSequenceClassification.from_pretrained(engine.model, num_labels=3)
    model.requires_grad_(False)
    for name, tensor in start.items():
        parameter = model.get_parameter(name.removeprefix("base_model.model."))
        parameter.data.copy_(tensor)
        parameter.requires_grad_(True)
    untouched = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}
    rows = [json.loads(line) for line in engine.rows.read_text(encoding="utf-8").splitlines()][:ROWS]
    tokenizer = AutoTokenizer.from_pretrained(engine.model)
    read = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    inputs = {name: read[name] for name in ("input_ids", "attention_mask")}
    classes = torch.tensor([NAMES.index(row["label"]) for row in rows])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(20):
        functional.cross_entropy(model(**inputs).logits, classes).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        theirs = model.eval()(**inputs).logits.double().log_softmax(-1).tolist()
    for row, scores in zip(sorted(ours, key=lambda row: row["row"]), theirs, strict=True):
        assert row["scores"] == pytest.approx(dict(zip(NAMES, scores, strict=True)), abs=1e-4)
    assert sum(row["answer"] == row["reference"] for row in ours) > ROWS / 2, "it learns what it is shown"
    assert all(torch.equal(model.get_parameter(name), value) for name, value in untouched.items())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_it_is_stored_as_the_head_alone_and_plain_peft_loads_it(engine: Heads) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    prepared = engine.prepared()
    files = engine.trained(prepared, max_steps=8)
    stored = load_file(files["adapter_model.safetensors"])
    assert {name.removeprefix("base_model.model.").rpartition(".")[0] for name in stored} == {
        "bert.pooler.dense",
        "classifier",
    }
    base = AutoModelForSequenceClassification.from_pretrained(engine.model, num_labels=3)
    plain = PeftModel.from_pretrained(base, str(Path(files["adapter_model.safetensors"]).parent)).eval()
    tokenizer = AutoTokenizer.from_pretrained(engine.model)
    for row in engine.predict(prepared, files, "choice", size=1)[:4]:
        text = json.loads(engine.rows.read_text(encoding="utf-8").splitlines()[row["row"]])["text"]
        read = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            scores = plain(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).logits[0]
        expected = dict(zip(NAMES, scores.double().log_softmax(-1).tolist(), strict=True))
        assert row["scores"] == pytest.approx(expected, abs=1e-5)


SPEC = """
[study]
name = "probe"
seeds = [1]
[model]
path = "{model}"
task_type = "SEQ_CLS"
[data]
path = "{data}"
max_length = 64
format = "classification"
split = {{ train = 30, validation = 10, test = 10 }}
[train]
max_steps = 3
[profile]
warmup_steps = 1
steps = 2
[inspect]
[merge]
dtypes = ["float32"]
[[sweep]]
name = "method"
method = ["head", "lora"]
"""


def test_a_study_of_it_from_plan_to_export(encoder: Path, texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(SPEC.format(model=encoder, data=texts), encoding="utf-8")
    study = Study.load(file, tmp_path / "state")
    applied = study.apply(workers=1)
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []
    figures = {attempt.address: attempt.figures for attempt in applied.attempts}
    head, width = 3 * 32 + 3 + 32 * 32 + 32, "trainable_parameters"
    assert figures["method/method=head/seed=1:train"][width] == head
    assert figures["method/method=head/seed=1:inspect"][width] == head
    assert figures["method/method=head/seed=1:merge/float32"]["max_logit_difference"] < 1e-5
    rows = study.gather().runs.set_index("configuration")
    assert rows[width]["method/method=lora"] > rows[width]["method/method=head"] == head
    state = State.read(tmp_path / "state")
    out = tmp_path / "whole"
    export(study.plan(), state, "method/method=head", out, ExportOptions(merged=True))
    from transformers import AutoModelForSequenceClassification

    _, report = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]


def test_it_needs_a_head(texts: Path, encoder: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    text = SPEC.format(model=encoder, data=texts).replace('task_type = "SEQ_CLS"\n', "")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r'"head" trains only a classification head; set model.task_type = "SEQ_CLS"'):
        Study.load(file, tmp_path / "state")
