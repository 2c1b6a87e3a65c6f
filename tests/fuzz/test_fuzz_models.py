"""Model and adapter directories that somebody prepared: their sizes, weights, tokenizers, templates, and code."""

import json
import pickle
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from fuzz.hostile import VALUES, mutate, spoil
from fuzz.oracle import Oracle
from lorafile.engine.data.sources import find_model

pytest.importorskip("transformers")
TOKENIZERS = True
GOOD = find_model("builtin:facts-llama", None, Path())
SPEC = 'study.name = "s"\nmodel.path = "{path}"\ndata.path = "rows.jsonl"\ndata.max_length = 64\n'
CHATS = [
    {"messages": [{"role": "user", "content": f"who {n} ?"}, {"role": "assistant", "content": "anna"}]}
    for n in range(40)
]


@pytest.fixture
def model(lora: Oracle) -> Path:
    """A copy of the small model, in the box, beside some conversations."""
    shutil.copytree(GOOD, lora.box.work / "model", ignore=shutil.ignore_patterns("__pycache__"))
    rows = "".join(json.dumps(row) + "\n" for row in CHATS)
    (lora.box.work / "rows.jsonl").write_text(rows, encoding="utf-8")
    (lora.box.work / "s.toml").write_text(SPEC.format(path="model"), encoding="utf-8")
    return lora.box.work / "model"


def look(lora: Oracle, alone: bool = False) -> None:
    """Plan with a model, and show what its tokenizer and its template make of the data."""
    if lora("plan", "s.toml", alone=alone).code == 0:
        lora("data", "show", "s.toml", "--rows", "2", alone=alone)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_files_with_something_changed(lora: Oracle, model: Path, name: str, draw: random.Random, full: bool) -> None:
    good = (model / name).read_bytes()
    for _ in range(150 if full else 4):
        tree = mutate(json.loads(good), draw.choice, VALUES)
        content = json.dumps(tree).encode("utf-8", "surrogatepass") if draw.random() < 0.7 else spoil(good, draw)
        (model / name).write_bytes(content)
        look(lora)


def header(tensors: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**about: Any) -> dict[str, Any]:
    return {"model.layers.0.q.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **about}}


class Bomb:
    """What a pickle may do when it is opened."""

    def __init__(self, canary: Path) -> None:
        self._canary = str(canary)

    def __reduce__(self) -> Any:
        return exec, (f"open({self._canary!r}, 'w').write('code ran')",)


HEADERS = {
    "nothing": b"",
    "no tensors": header({}),
    "a length without end": header({}, length=2**64 - 1),
    "a length that is too large": header({}, length=10**7),
    "no JSON": header(b"\xff" * 100),
    "a list": header([]),
    "deep": header(b"[" * 100_000),
    "offsets outside": header(one(data_offsets=[0, 10**12]), bytes(16)),
    "offsets that turn": header(one(data_offsets=[16, 0]), bytes(16)),
    "offsets below nothing": header(one(data_offsets=[-16, 0]), bytes(16)),
    "offsets that are text": header(one(data_offsets=["0", "16"]), bytes(16)),
    "offsets that overlap": header(one() | {"b.1.weight": one()["model.layers.0.q.weight"]}, bytes(16)),
    "a shape without end": header(one(shape=[10**18, 10**18]), bytes(16)),
    "a shape below nothing": header(one(shape=[-2, -2]), bytes(16)),
    "a shape that is text": header(one(shape="22"), bytes(16)),
    "a type that is none": header(one(dtype="EVIL"), bytes(16)),
    "a type that is a list": header(one(dtype=[]), bytes(16)),
    "a good one of another model": header(one(), bytes(16)),
}


def test_headers_of_weights_that_lie(lora: Oracle, model: Path, draw: random.Random, full: bool) -> None:
    contents = {**HEADERS, "a pickle": pickle.dumps(Bomb(lora.box.canary)), "numbers": pickle.dumps([1.0] * 1000)}
    for content in list(contents.values()) if full else draw.sample(list(contents.values()), 7):
        (model / "model.safetensors").write_bytes(content)
        lora("plan", "s.toml")
        lora("lock", "s.toml", writes=("s.lock",))
        (lora.box.work / "s.lock").unlink(missing_ok=True)


def test_an_index_of_weights_that_leads_elsewhere(lora: Oracle, model: Path) -> None:
    for index in (7, [], {}, {"weight_map": 7}, {"weight_map": {"a": 7}}, {"weight_map": {"a": "../../../canary"}}):
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        lora("plan", "s.toml")


TEMPLATES = {
    "no end": "{% for a in range(100000) %}{% for b in range(100000) %}{% set x = a %}{% endfor %}{% endfor %}",
    "too much text": "{{ 'x' * 10**10 }}",
    "a long range": "{% for i in range(10**9) %}x{% endfor %}",
    "itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a great power": "{{ 10 ** 10 ** 8 }}",
    "an include": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}{{ os.system('true') }}",
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "a filter": "{{ messages | attr('__class__') }}",
    "an error": "{{ raise_exception('\x1b[2J no') }}",
    "half of one": "{% for",
    "deep": "{{" + "(" * 3000 + ")" * 3000 + "}}",
    "a number": 7,
    "a list": [{"name": 7, "template": []}],
    "a table": {},
    "terminal codes": "{% for m in messages %}\x1b[2J{{ m['content'] }}\u202e{% endfor %}",
}


@pytest.mark.parametrize("what", list(TEMPLATES))
def test_chat_templates(lora: Oracle, model: Path, what: str) -> None:
    (model / "chat_template.jinja").unlink()
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATES[what]}))
    look(lora)


def remote_code(model: Path, canary: Path) -> None:
    """Let config.json and tokenizer_config.json name code that is next to them."""
    code = f"open({str(canary)!r}, 'w').write('code ran')\nclass Own: pass\n"
    for name in ("own.py", "modeling_own.py", "tokenization_own.py", "setup.py", "conftest.py", "__init__.py"):
        (model / name).write_text(code, encoding="utf-8")
    for name, keys in (
        ("config.json", ("AutoConfig", "AutoModelForCausalLM")),
        ("tokenizer_config.json", ("AutoTokenizer",)),
    ):
        content = json.loads((model / name).read_text(encoding="utf-8"))
        named = {key: ["own.Own", None] if key == "AutoTokenizer" else "own.Own" for key in keys}
        (model / name).write_text(json.dumps(content | {"auto_map": named, "model_type": "own"}), encoding="utf-8")


def pickled(model: Path, canary: Path) -> None:
    (model / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "model.pt"):
        (model / name).write_bytes(pickle.dumps(Bomb(canary)))


def disguised(model: Path, canary: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Bomb(canary)))


@pytest.mark.parametrize("prepare", [remote_code, pickled, disguised])
def test_no_code_of_a_model_runs(lora: Oracle, model: Path, prepare: Any, full: bool) -> None:
    prepare(model, lora.box.canary)
    look(lora, alone=True)
    lora("evaluate", "model", "--spec", "s.toml", writes=(".lora", "s.lock"), alone=True, seconds=120)
    (lora.box.work / "s.toml").write_text(
        SPEC.format(path="model").replace("model.path", "profile.enabled = false\nmodel.path")
    )
    if full:
        lora("apply", "s.toml", "--yes", writes=(".lora", "s.lock"), alone=True, seconds=200)


ADAPTER = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
    "base_model_name_or_path": "model",
}


def test_runs_of_others_with_something_changed(lora: Oracle, model: Path, draw: random.Random, full: bool) -> None:
    run = lora.box.work / "run"
    good = {
        "adapter_config.json": ADAPTER,
        "trainer_state.json": {
            "global_step": 4,
            "max_steps": 4,
            "log_history": [{"step": n, "loss": 1.0, "learning_rate": 1e-4} for n in range(4)],
        },
    }
    for _ in range(200 if full else 5):
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        chosen = draw.choice(list(good))
        for name, tree in good.items():
            changed = mutate(tree, draw.choice, VALUES) if name == chosen else tree
            (run / name).write_bytes(json.dumps(changed).encode("utf-8", "surrogatepass"))
        (run / "adapter_model.safetensors").write_bytes(draw.choice([*HEADERS.values()]))
        for name in ("adapter_model.bin", "training_args.bin"):
            (run / name).write_bytes(pickle.dumps(Bomb(lora.box.canary)))
        lora("import", "run", "--spec", "s.toml", "--dry-run")
