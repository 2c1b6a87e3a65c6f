"""Raw text in blocks: no document sees another, none is lost, and a model that cannot do it says so."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from architectures_fixture import DENSE, config_of  # noqa: E402
from engine_fixture import Engine  # noqa: E402

from lorafile.engine.batching.batches import collate  # noqa: E402
from lorafile.engine.batching.tokens import (  # noqa: E402
    Blocks,
    Tokens,
    pack,
    separates_documents,
    training_units,
)
from lorafile.engine.data.blocks import best_fit  # noqa: E402
from lorafile.engine.data.encode import Encoded, load_tokenizer  # noqa: E402
from lorafile.engine.data.readers import read_rows  # noqa: E402
from lorafile.engine.model.loss import supervised_logits  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402

NO_SDPA = ("gemma2", "sdpa")  # transformers has none for it


def random_model(kind: str, attention: str) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(kind), attn_implementation=attention).eval()


def packed() -> Blocks:
    """Seven documents of different lengths in blocks of 24 tokens."""
    rng = random.Random(0)
    sizes = [5, 17, 3, 24, 9, 11, 2]
    examples = [Encoded([rng.randrange(3, 64) for _ in range(n)], [0] + [1] * (n - 1), 0) for n in sizes]
    return Blocks(pack(examples, best_fit(sizes, 24)))


@pytest.mark.parametrize(
    ("kind", "attention"),
    [(kind, attention) for kind in DENSE for attention in ("eager", "sdpa") if (kind, attention) != NO_SDPA],
)
def test_a_document_in_a_block_has_the_logits_that_it_has_alone(kind: str, attention: str) -> None:
    """What training computes, against the model on each document alone, in a row and by itself."""
    model, blocks = random_model(kind, attention), packed()
    assert separates_documents(model)
    batch = collate(blocks, list(range(len(blocks))), 0, torch.device("cpu"))
    logits, targets, rows = supervised_logits(model, batch)
    checked = 0
    with torch.inference_mode():
        for block, members in enumerate(blocks.members):
            mine, aims = logits[rows == block], targets[rows == block]
            for index in members:
                ids, _ = blocks.tokens.example(index)
                alone = model(input_ids=ids[None]).logits[0, :-1].float()
                assert torch.allclose(mine[: len(alone)], alone, atol=1e-5)
                assert aims[: len(alone)].tolist() == ids[1:].tolist()
                mine, aims, checked = mine[len(alone) :], aims[len(alone) :], checked + 1
            assert not len(mine)
    assert checked == len(blocks.tokens)


class Leaky(torch.nn.Module):
    """A model that takes position ids, and lets every token see all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(64, 64)
        self.config = SimpleNamespace(model_type="leaky")

    def get_input_embeddings(self) -> Any:
        return self.table

    def forward(self, input_ids: Any, position_ids: Any = None, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.table(input_ids).cumsum(1))


def test_a_model_that_leaks_is_found_out_and_its_text_unpacked() -> None:
    model = Leaky()
    assert not separates_documents(model)
    assert model.training
    tokens, told = training_units(packed().tokens, model, {"per_device_train_batch_size": 1})
    assert isinstance(tokens, Tokens)
    assert len(tokens) == 7
    assert told.startswith("leaky lets a document in a block attend to the one before it")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_model_with_virtual_tokens_is_not_packed_for() -> None:
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(random_model("llama", "sdpa"), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=4))
    assert not separates_documents(model)


def test_blocks_hold_every_document_once_and_are_few() -> None:
    rng = random.Random(1)
    sizes = [rng.randrange(1, 65) for _ in range(2000)]
    blocks = best_fit(sizes, 64)
    filled: dict[int, int] = {}
    for block, size in zip(blocks, sizes, strict=True):
        filled[block] = filled.get(block, 0) + size
    assert max(filled.values()) <= 64
    assert sorted(filled) == list(range(len(filled)))
    assert len(filled) <= 11 / 9 * sum(sizes) / 64 + 1


def text_file(root: Path, name: str = "rows.txt") -> Path:
    words = ["paris", "london", "rome", "oslo", "lima", "cairo"]
    rng = random.Random(0)
    speeches = ["anna :\n" + " ".join(rng.choices(words, k=1 + n % 40)) for n in range(30)]
    (root / name).write_text("\n\n".join(speeches) + "\n", encoding="utf-8")
    return root / name


def test_a_document_of_a_text_file_is_a_paragraph_where_it_has_any(tmp_path: Path) -> None:
    file = text_file(tmp_path)
    assert len(list(read_rows([file]))) == 30
    assert len(list(read_rows([file], "line"))) == 60
    assert len(list(read_rows([file], "document"))) == 1
    assert next(read_rows([file]))["text"].startswith("anna :\n")
    (tmp_path / "lines.txt").write_text("a\nb\n", encoding="utf-8")
    assert [row["text"] for row in read_rows([tmp_path / "lines.txt"])] == ["a", "b"]


def test_long_documents_are_cut_and_every_token_is_counted_once(tmp_path: Path, tiny_model: Path) -> None:
    file = text_file(tmp_path)
    mine = Engine(tiny_model, file, tmp_path)
    prepared = mine.prepare(30, format="text", packing=True, max_length=16)
    tokens, tokenizer = Tokens.load(prepared["tokens.safetensors"]), load_tokenizer(str(tiny_model))
    lines = list(read_lines(prepared["examples.jsonl.gz"]))
    texts = [row["text"] for row in read_rows([file])]
    expected = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    counted: dict[int, list[int]] = {}
    for index, line in enumerate(lines):
        ids, marks = tokens.example(index)
        counted.setdefault(line["row"], []).extend(ids[marks.bool()].tolist())
        assert len(ids) <= 16
    assert list(counted.values()) == [ids[1:] for ids in expected]
    assert sum(line["bytes"] for line in lines) == sum(len(text.encode()) for text in texts)
    assert len(lines) > 30


def test_the_held_out_loss_of_a_cut_document_counts_each_token_once(tmp_path: Path, tiny_model: Path) -> None:
    mine = Engine(tiny_model, text_file(tmp_path), tmp_path)
    rows = mine.predict(mine.prepare(30, format="text", packing=True, max_length=16), None)
    whole = mine.predict(mine.prepare(30, format="text", packing=True, max_length=100), None)
    assert sum(row["tokens"] for row in rows) == sum(row["tokens"] for row in whole)
    assert len(rows) > len(whole) == 30


def test_packing_takes_fewer_steps_and_says_so_in_blocks(tmp_path: Path, tiny_model: Path) -> None:
    mine = Engine(tiny_model, text_file(tmp_path), tmp_path)
    packed_ = mine.prepare(30, format="text", packing=True, max_length=64)
    apart = mine.prepare(30, format="text", max_length=64)
    figures = [
        mine.train(files, max_steps=-1, num_train_epochs=1.0, per_device_train_batch_size=1)[0].figures
        for files in (packed_, apart)
    ]
    assert figures[0]["steps"] == len(Blocks(Tokens.load(packed_["tokens.safetensors"])))
    assert figures[1]["steps"] == 30 > figures[0]["steps"]
    assert figures[0]["supervised_tokens"] == figures[1]["supervised_tokens"]
    assert figures[0]["tokens"] == figures[1]["tokens"]


def test_a_study_of_real_text(tmp_path: Path, shared: Path) -> None:
    from lorafile import Study

    (tmp_path / "study.toml").write_text(
        f'[study]\nname = "x"\nseeds = [1]\n[model]\npath = "{shared}/models/stories260K-hf"\n'
        f'[data]\npath = "{shared}/data/tinyshakespeare/input.txt"\nmax_length = 128\n'
        "split = { train = 60, validation = 10, test = 10 }\n[train]\nmax_steps = 3\n[profile]\nenabled = false\n",
        encoding="utf-8",
    )
    study = Study.load(tmp_path / "study.toml", tmp_path / ".lora")
    applied = study.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    assert json.dumps(study.gather().data).count("blocks") == 3
