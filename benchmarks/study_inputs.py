"""What the `study` benchmark trains on: models, rows and the spec of eight configurations."""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
CONFIGURATIONS: dict[str, tuple[int, list[str]]] = {  # name -> rank, modules
    **{f"r{rank}": (rank, ATTENTION) for rank in (4, 8, 16, 32, 64)},
    "qv": (16, ["q_proj", "v_proj"]),
    "qkv": (16, ATTENTION[:3]),
    "all-linear": (16, ALL_LINEAR),
}
SHAPES: dict[str, dict[str, int]] = {  # of random Llamas
    "15M": {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6},
    "1.1B": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
}
VOCABULARY = 32_000

SPEC = """
[study]
name = "eight"
seeds = [1]
[model]
path = "{model}"
dtype = "{dtype}"
[data]
path = "{data}"
format = "completion"
max_length = {max_length}
too_long = "truncate"
split = {{ train = "train", test = "test" }}
[train]
num_train_epochs = 1
per_device_train_batch_size = {batch}
learning_rate = {learning_rate}
[evaluate]
metrics = ["log_loss"]
[profile]
enabled = false
[[sweep]]
name = "eight"
configurations = [
{configurations}
]
"""


@dataclass(frozen=True)
class Setting:
    """One size of the study: what both sides are given.

    :ivar model: `stories260K-hf`, or a shape of `SHAPES`
    :ivar full: every row is filled to `max_length` with text, and not a question with its answer
    """

    model: str
    train: int
    test: int
    batch: int = 4
    max_length: int = 256
    learning_rate: float = 1e-3
    dtype: str = "float32"
    full: bool = False


SETTINGS = {
    "small": Setting("stories260K-hf", train=300, test=100),
    "large-vocabulary": Setting("15M", train=80, test=40),
    "gpu": Setting("1.1B", train=160, test=40, learning_rate=2e-4, dtype="bfloat16", full=True),
}


def make(setting: Setting, shared: Path, out: Path) -> Path:
    """Write model, rows, the tool's spec and the peer's task into a folder; return the task's file."""
    out.mkdir(parents=True, exist_ok=True)
    data = out / "data"
    data.mkdir(exist_ok=True)
    rows = _filled(shared, setting) if setting.full else _instructions(shared)
    random.Random(0).shuffle(rows)
    splits = {"test": rows[: setting.test], "train": rows[setting.test : setting.test + setting.train]}
    for split, some in splits.items():
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    model = shared / "models" / setting.model
    if setting.model in SHAPES:
        model = out / "model"
        _random_llama(setting.model, shared, model, setting.dtype)
    lines = [f'  {{ name = "{n}", lora.r = {r}, lora.target_modules = {m} }},' for n, (r, m) in CONFIGURATIONS.items()]
    values: dict[str, Any] = {**asdict(setting), "model": str(model), "data": str(data)}
    text = SPEC.format(**values, configurations="\n".join(lines).replace("'", '"'))
    (out / "study.toml").write_text(text, encoding="utf-8")
    task = out / "task.json"
    task.write_text(json.dumps({**values, "configurations": CONFIGURATIONS}, indent=1), encoding="utf-8")
    return task


def _instructions(shared: Path) -> list[dict[str, str]]:
    """Return the rows of self-instruct, prompts cut so that an answer is left of every row: TRL drops rows without."""
    rows = []
    for line in (shared / "data" / "instruct" / "self_instruct.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked = "\n\n".join(text for text in (row["instruction"], row["input"]) if text)
        rows.append({"prompt": f"{asked[:250]}\n\n", "completion": row["output"]})
    return rows


def _filled(shared: Path, setting: Setting) -> list[dict[str, str]]:
    """Return rows of running text, each longer than `max_length`: a batch holds no padding."""
    text = (shared / "data" / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    size = 10 * setting.max_length  # characters; a token of this vocabulary has fewer than ten of them
    parts = [text[at : at + size] for at in range(0, size * (setting.train + setting.test), size)]
    return [{"prompt": part[:20], "completion": part[20:]} for part in parts]


def _random_llama(shape: str, shared: Path, out: Path, dtype: str) -> None:
    """Write a Llama of random weights, always the same ones, and a tokenizer with as large a vocabulary."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    files = ["tinyshakespeare/input.txt", "instruct/self_instruct.jsonl", "gsm8k/train.jsonl"]
    tokenizer.train([str(shared / "data" / file) for file in files], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(out)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        **SHAPES[shape],
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(out)
