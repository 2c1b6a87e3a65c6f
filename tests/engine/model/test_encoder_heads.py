"""Encoders classify: the head of each class is found, drawn from the seed, trained, and saved as PEFT loads it."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from checkpoint_fixture import make_checkpoint  # noqa: E402
from engine_fixture import MODEL, Engine  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from lorafile.engine.model.base import load_base  # noqa: E402
from lorafile.specs.tables.quantizations import quantization_settings  # noqa: E402

NAMES = ["no", "yes", "not"]
# Each with the modules that its adapter saves whole, and where LoRA sits.
KINDS = {
    "bert": (["classifier", "pooler"], ["query", "value"]),
    "roberta": (["classifier"], ["query", "value"]),
    "distilbert": (["classifier", "pre_classifier"], ["q_lin", "v_lin"]),
    "deberta-v2": (["classifier", "pooler"], ["query_proj", "value_proj"]),
    "electra": (["classifier"], ["query", "value"]),
    "modernbert": (["classifier", "head"], ["Wqkv"]),
    "albert": (["classifier", "pooler"], ["query", "value"]),
}


class Encoders(Engine):
    """An engine whose model is an encoder with a head of three classes."""

    quantization = "none"

    def run(self, kind: str, settings: dict[str, Any], *rest: Any, **execution: Any) -> Any:
        head = {**MODEL, "task_type": "SEQ_CLS", "labels": NAMES, "head": "new"}
        chosen = {"model": head, "quantization": quantization_settings(self.quantization)}
        return super().run(kind, {**settings, **chosen}, *rest, **execution)

    def examples(self) -> dict[str, str]:
        labels = [[str(number), name] for number, name in enumerate(NAMES)]
        return self.prepare(24, format="classification", labels=labels, task_type="SEQ_CLS", max_length=64)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs of sentences of different lengths, whose first word tells their class."""
    first = ("anna", "tom", "paris")
    rows = [
        {"sentence1": f"{first[n % 3]} likes {'a ' * (n % 4)}", "sentence2": "who has been to rome ?", "label": n % 3}
        for n in range(24)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def train(engine: Encoders, kind: str, steps: int = 4, **more: Any) -> tuple[dict[str, str], dict[str, str]]:
    prepared = engine.examples()
    adapter = {"method": "lora", "r": 4, "lora_alpha": 8, "target_modules": KINDS[kind][1]}
    done, files = engine.train(prepared, adapter, max_steps=steps, learning_rate=1e-2, **more)
    assert done.outcome == "done", done.message
    return prepared, files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21's own
def test_a_trained_encoder_loads_in_plain_peft_with_equal_scores(tmp_path: Path, pairs: Path, kind: str) -> None:
    """Tokens straight from the tokenizer, one pair at a time, with its token types."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = make_checkpoint(kind, tmp_path / "model", encoder=True)
    engine = Encoders(path, pairs, tmp_path)
    prepared, files = train(engine, kind)
    ours = engine.predict(prepared, files, "choice")
    plain = AutoModelForSequenceClassification.from_pretrained(path, num_labels=3)
    tuned: Any = PeftModel.from_pretrained(plain, str(Path(files["adapter_model.safetensors"]).parent)).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    for row in ours:
        pair = rows[row["row"]]
        inputs = dict(tokenizer(pair["sentence1"], pair["sentence2"], return_tensors="pt"))
        if kind in ("distilbert", "modernbert"):
            del inputs["token_type_ids"]  # their models take none
        with torch.no_grad():
            theirs = tuned(**inputs).logits[0].double().log_softmax(-1)
        assert row["scores"] == pytest.approx(dict(zip(NAMES, theirs.tolist(), strict=True)), abs=1e-5)
    config = json.loads(Path(files["adapter_config.json"]).read_text(encoding="utf-8"))
    assert set(KINDS[kind][0]) <= set(config["modules_to_save"])


def test_every_parameter_of_a_head_is_drawn_from_the_seed(tmp_path: Path, pairs: Path) -> None:
    def head(seed: int) -> list[Any]:
        settings = {"model": {**MODEL, "task_type": "SEQ_CLS", "labels": NAMES, "head": "new"}, "quantization": None}
        base = load_base(settings, {"model": str(path)})
        base.draw_head(seed)
        assert base.drawn == ("classifier",)
        return [parameter.detach().clone() for parameter in base.model.get_submodule("classifier").parameters()]

    path = make_checkpoint("roberta", tmp_path / "model", encoder=True)
    one, again, other = head(1), head(1), head(2)
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[0], other[0])
    weights = [parameter for parameter in one if parameter.ndim == 2]
    assert len(weights) == 2
    for weight in weights:
        assert float(weight.std()) == pytest.approx(0.02, rel=0.3)  # RobertaConfig.initializer_range
    assert all(not parameter.any() for parameter in one if parameter.ndim == 1)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantized_encoder_keeps_its_head_whole(tmp_path: Path, pairs: Path, quantization: str) -> None:
    path = make_checkpoint("distilbert", tmp_path / "model", encoder=True, dim=64, hidden_dim=128)
    engine = Encoders(path, pairs, tmp_path)
    engine.quantization = quantization
    _, files = train(engine, "distilbert")
    saved = load_file(files["adapter_model.safetensors"])
    heads = {name: tensor for name, tensor in saved.items() if "classifier" in name}
    assert {tensor.dtype for tensor in heads.values()} == {torch.float32}
    assert {tuple(tensor.shape) for tensor in heads.values()} == {(64, 64), (64,), (3, 64), (3,)}


def test_token_types_are_the_tokenizers(tmp_path: Path, pairs: Path) -> None:
    from transformers import AutoTokenizer

    path = make_checkpoint("bert", tmp_path / "model", encoder=True)
    tokens = load_file(Encoders(path, pairs, tmp_path).examples()["tokens.safetensors"])
    row = json.loads(pairs.read_text(encoding="utf-8").splitlines()[0])
    theirs = AutoTokenizer.from_pretrained(path)(row["sentence1"], row["sentence2"])
    size = len(theirs["input_ids"])
    assert tokens["input_ids"][:size].tolist() == theirs["input_ids"]
    assert tokens["types"][:size].tolist() == theirs["token_type_ids"]
    assert 1 in theirs["token_type_ids"]


def test_a_text_beyond_the_models_positions_is_refused(tmp_path: Path) -> None:
    """A RoBERTa counts positions from its padding token on: of 66 it reads 65 tokens, [CLS] and [SEP] among them."""
    path = make_checkpoint("roberta", tmp_path / "model", encoder=True)
    tokenizer = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"model_max_length": 10**9}), encoding="utf-8")
    rows = tmp_path / "rows.jsonl"
    labels = [[str(number), name] for number, name in enumerate(NAMES)]
    data = {"format": "classification", "labels": labels, "task_type": "SEQ_CLS", "max_length": 512}
    for words, outcome in ((63, "done"), (64, "failed")):
        lines = [json.dumps({"text": "tom " * words, "label": number % 3}) for number in range(6)]
        rows.write_text("\n".join(lines), encoding="utf-8")
        settings = {"template": None, "columns": {}, "too_long": "error", "completion_only_loss": True, **data}
        settings["rows"] = {"seed": None, "start": 0, "stop": 6}
        (tmp_path / str(words)).mkdir()
        done, _ = Encoders(path, rows, tmp_path / str(words)).run("prepare", {"data": settings})
        assert done.outcome == outcome, done.message
    assert "has 66 tokens, more than 65. The model reads no more" in done.message
