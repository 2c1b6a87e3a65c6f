"""Several examples in one row: each optimizer step has the loss that its examples have alone, in fewer passes."""

import json
import random
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from architectures_fixture import save_model  # noqa: E402
from engine_fixture import LORA, MODEL, Engine  # noqa: E402

from lorafile.engine.batching.batches import collate  # noqa: E402
from lorafile.engine.batching.tokens import PackedExamples, Tokens, pack, training_units  # noqa: E402
from lorafile.engine.data.encode import Encoded  # noqa: E402
from lorafile.engine.nodes.train import largest_step, step_batches  # noqa: E402
from lorafile.engine.request import Result  # noqa: E402
from lorafile.errors import NodeError  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.specs.tables.quantizations import quantization_settings  # noqa: E402
from lorafile.specs.tables.train import PACKED_ROW_LENGTH, TrainTable  # noqa: E402

LIMIT = 100
TARGETS = {"llama": ["q_proj", "down_proj"], "qwen2": ["v_proj", "gate_proj"], "gpt2": ["c_attn"]}
NO_DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)  # drawn for each micro-batch
BATCH = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions with answers of very different lengths."""
    rng, words = random.Random(0), ["paris", "london", "rome", "oslo", "lima", "cairo"]
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [
        {"prompt": "where did " + " ".join(rng.choices(words, k=rng.randrange(1, 9))), "completion": f" {word} !" * n}
        for n, word in ((rng.randrange(1, 7), rng.choice(words)) for _ in range(40))
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def run_of(engine: Engine, kind: str, **table: Any) -> dict[str, Any]:
    """Return the sections of a run; `packed` is the length of its rows."""
    packed, quantization = table.pop("packed", None), quantization_settings(table.pop("quantization", "none"))
    adapter = {**LORA, "target_modules": TARGETS[kind]}
    training = TrainTable(**{"learning_rate": 5e-3, "max_steps": 12, **BATCH, **table}).model_dump()
    training |= {PACKED_ROW_LENGTH: packed} if packed else {}
    return {"model": MODEL, "quantization": quantization, "adapter": adapter, "training": training, "seed": 1}


def trained(engine: Engine, prepared: dict[str, str], kind: str, **table: Any) -> tuple[Result, dict[str, str]]:
    done, files = engine.run("train", run_of(engine, kind, **table), {"train": prepared})
    assert done.outcome == "done", done.message
    return done, files


def losses(files: dict[str, str]) -> list[float]:
    return [row["loss"] for row in read_lines(files["curve.jsonl.gz"])]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", TARGETS)
def test_a_step_has_the_loss_that_it_has_unpacked(kind: str, whole: bool, rows: Path, tmp_path: Path) -> None:
    """Of the answers, or of whole examples, whose first token nothing predicts."""
    save_model(kind, tmp_path / "model", **(NO_DROPOUT if kind == "gpt2" else {}))
    engine = Engine(tmp_path / "model", rows, tmp_path)
    prepared = engine.prepare(40, max_length=LIMIT, completion_only_loss=not whole)
    packed, apart = (trained(engine, prepared, kind, packed=limit) for limit in (LIMIT, None))
    assert losses(packed[1]) == pytest.approx(losses(apart[1]), abs=1e-5)
    assert losses(packed[1])[-1] < losses(packed[1])[0]
    for figure in ("steps", "tokens", "supervised_tokens"):
        assert packed[0].figures[figure] == apart[0].figures[figure]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", TARGETS)
def test_a_step_has_the_loss_of_its_examples_alone_in_transformers(kind: str, rows: Path, tmp_path: Path) -> None:
    """The sixth step of a packed run, against what PEFT and transformers make of the adapter after five."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    save_model(kind, tmp_path / "model", **(NO_DROPOUT if kind == "gpt2" else {}))
    engine = Engine(tmp_path / "model", rows, tmp_path)
    prepared = engine.prepare(40, max_length=LIMIT)
    constant = {"lr_scheduler_type": "constant", "packed": LIMIT}
    five, six = (trained(engine, prepared, kind, max_steps=steps, **constant)[1] for steps in (5, 6))
    tokens = PackedExamples(Tokens.load(prepared["tokens.safetensors"]), LIMIT)
    *_, (_, sixth) = islice(step_batches(tokens, TrainTable(**BATCH).model_dump(), 1), 6)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    model = PeftModel.from_pretrained(model, str(Path(five["adapter_config.json"]).parent)).eval()
    total = count = 0.0
    for index in (index for part in sixth for row in part for index in row):
        ids, marks = tokens.tokens.example(index)
        labels = ids.masked_fill(marks == 0, -100)[None]
        number = int((labels[:, 1:] != -100).sum())
        with torch.inference_mode():
            total, count = total + number * float(model(input_ids=ids[None], labels=labels).loss), count + number
    assert losses(six)[5] == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize(
    "way",
    [{"gradient_checkpointing": True}, {"bf16": True}, {"quantization": "nf4"}, {"quantization": "int8"}],
    ids=str,
)
def test_other_ways_to_compute(way: dict[str, Any], rows: Path, tiny_model: Path, tmp_path: Path) -> None:
    """In bfloat16 and on a quantized base the two differ by their rounding."""
    engine = Engine(tiny_model, rows, tmp_path)
    prepared = engine.prepare(40, max_length=LIMIT)
    packed, apart = (trained(engine, prepared, "llama", packed=limit, **way)[1] for limit in (LIMIT, None))
    assert losses(packed) == pytest.approx(losses(apart), abs=1e-5 if "gradient_checkpointing" in way else 3e-2)


def tokens_of(sizes: list[int]) -> Tokens:
    rng = random.Random(0)
    return pack([Encoded([rng.randrange(3, 64) for _ in range(n)], [1] * n, 0) for n in sizes])


def test_a_step_has_its_examples_in_fewer_and_fuller_rows() -> None:
    rng = random.Random(3)
    apart = tokens_of([rng.randrange(2, 20) for _ in range(64)])
    packed, settings = PackedExamples(apart, 32), TrainTable(**BATCH).model_dump()
    sizes = apart.lengths()
    for (epoch, mine), (same, theirs), _ in zip(
        step_batches(packed, settings, 7), step_batches(apart, settings, 7), range(16), strict=False
    ):
        assert epoch == same
        assert sorted(index for part in mine for row in part for index in row) == sorted(
            index for part in theirs for index in part
        )
        assert len(mine) <= len(theirs) == 4
        assert all(len(part) <= 2 for part in mine)
        assert all(sum(sizes[index] for index in row) <= 32 for part in mine for row in part)


def test_rows_are_no_longer_than_the_fewest_passes_need() -> None:
    """Eight examples of 8 tokens: two rows in one pass take 32 tokens each, and eight rows need no packing."""
    packed = PackedExamples(tokens_of([8] * 8), 64)
    assert [len(row) for row in packed.rows(range(8), 1)] == [8]
    assert [len(row) for row in packed.rows(range(8), 2)] == [4, 4]
    assert [len(row) for row in packed.rows(range(8), 8)] == [1] * 8
    assert [len(row) for row in PackedExamples(packed.tokens, 20).rows(range(8), 2)] == [2, 2, 2, 2]


def test_the_largest_step_is_the_one_of_most_positions() -> None:
    """Of examples of 60 tokens a row has one, and of examples of 50 two."""
    packed, settings = PackedExamples(tokens_of([60, 60, 50, 50]), 100), TrainTable(**BATCH).model_dump()
    largest = largest_step(packed, settings | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2})
    assert largest == [[(2, 3)]]


def test_nothing_predicts_the_first_token_of_an_example() -> None:
    packed = PackedExamples(tokens_of([4, 3, 2]), 16)
    batch = collate(packed, [(0, 1), (2,)], 0, torch.device("cpu"))
    assert batch.supervised.tolist()[0] == [False, True, True, True, False, True, True]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 0, 0, 0, 0, 0]]
    assert batch.targets == 3 + 2 + 1
    assert batch.tokens == 9


class Mixing(torch.nn.Module):
    """A model whose rows are kept apart, but not the documents in them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(64, 64)
        self.config = SimpleNamespace(model_type="mixing")

    def get_input_embeddings(self) -> Any:
        return self.table

    def forward(self, input_ids: Any, position_ids: Any = None, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.table(input_ids).cumsum(1))


class OneRow(Mixing):
    """A model that reads where documents begin in a single row alone, as flash attention does."""

    def forward(self, input_ids: Any, position_ids: Any = None, use_cache: bool = False) -> Any:
        if len(input_ids) > 1:
            return super().forward(input_ids)
        begins = (position_ids[0] == 0).nonzero().flatten().tolist()
        parts = [part.cumsum(1) for part in self.table(input_ids).tensor_split(begins[1:], dim=1)]
        return SimpleNamespace(logits=torch.cat(parts, dim=1))


@pytest.mark.parametrize("kind", [Mixing, OneRow])
def test_a_model_that_mixes_the_examples_of_a_row_is_refused(kind: type[Mixing]) -> None:
    with pytest.raises(NodeError, match=r"^data\.packing: mixing does not keep the examples of a row apart") as refused:
        training_units(tokens_of([4, 3]), kind(), {PACKED_ROW_LENGTH: 16, **BATCH})
    assert str(refused.value).endswith("set data.packing = false.")


def test_rows_that_come_one_by_one_need_not_be_kept_apart_in_a_batch() -> None:
    single = {PACKED_ROW_LENGTH: 16, "per_device_train_batch_size": 1}
    assert isinstance(training_units(tokens_of([4, 3]), OneRow(), single)[0], PackedExamples)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_virtual_tokens_are_refused(tiny_model: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = get_peft_model(base, PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(NodeError, match="virtual tokens stand before a row"):
        training_units(tokens_of([4, 3]), model, {PACKED_ROW_LENGTH: 16, **BATCH})


def test_a_recurrent_model_is_refused_when_it_trains(rows: Path, tmp_path: Path) -> None:
    save_model("mamba", tmp_path / "model")
    engine = Engine(tmp_path / "model", rows, tmp_path)
    settings = run_of(engine, "llama", packed=LIMIT)
    settings["adapter"] = {**LORA, "target_modules": ["in_proj"]}
    done, _ = engine.run("train", settings, {"train": engine.prepare(40, max_length=LIMIT)})
    assert done.outcome == "failed"
    assert "data.packing: mamba does not keep the examples of a row apart" in done.message


def test_a_profile_measures_packed_steps(rows: Path, tiny_model: Path, tmp_path: Path) -> None:
    engine = Engine(tiny_model, rows, tmp_path)
    settings = run_of(engine, "llama", packed=LIMIT)
    settings["profile"] = {"warmup_steps": 1, "steps": 2, "new_tokens": 2, "repeats": 1}
    done, _ = engine.run("profile", settings, {"train": engine.prepare(40, max_length=LIMIT)})
    assert done.outcome == "done", done.message
    assert done.figures["tokens_per_second"] > 0
