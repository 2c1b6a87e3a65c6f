"""Specs that are wrong in every way: their tables, their bytes, and what is too much of something."""

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzz.conftest import SEED
from fuzz.hostile import NAMES, document, mutate, spoil, text
from fuzz.oracle import Oracle
from lorafile.specs.catalogue import preset, preset_names

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BASE = 'study.name = "s"\nmodel.path = "builtin:facts-llama"\ndata.path = "builtin:facts"\n'
TEXTS = [preset(name) for name in preset_names()] + [
    file.read_text(encoding="utf-8") for file in sorted(EXAMPLES.rglob("*.toml"))
]
WHOLE = [{**tomllib.loads(text), "model": {"path": "builtin:facts-llama"}} for text in TEXTS]


def try_spec(lora: Oracle, content: bytes, alone: bool = False) -> None:
    """Everything that reads a spec reads this one; more than `validate` only where that finds no mistake."""
    folder = lora.box.fresh()
    (folder / "base.toml").write_text(BASE, encoding="utf-8")
    (folder / "s.toml").write_bytes(content)
    if lora("validate", "s.toml", names="s.toml", codes=(0, 3), alone=alone).code:
        return
    lora("plan", "s.toml", alone=alone)
    lora("plan", "s.toml", "--json")
    lora("graph", "s.toml")
    lora("diff", "base.toml", "s.toml")
    if content.count(b"[[sweep]]") < 100:
        lora("report", "s.toml", "--json")


@st.composite
def specs(draw: st.DrawFn) -> bytes:
    tree: Any = draw(st.sampled_from(WHOLE))
    for _ in range(draw(st.integers(1, 3))):
        tree = mutate(tree, lambda options: draw(st.sampled_from(options)))
        if not isinstance(tree, dict) or not tree:
            break
    return document(tree).encode("utf-8", "replace")


def test_good_specs_with_something_changed(lora: Oracle, full: bool) -> None:
    @seed(SEED)
    @settings(
        max_examples=2500 if full else 50,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(specs())
    def each(content: bytes) -> None:
        try_spec(lora, content)

    each()


def test_good_specs_with_other_bytes(lora: Oracle, draw: random.Random, full: bool) -> None:
    for number in range(1500 if full else 30):
        content = draw.choice(TEXTS).replace("microsoft/phi-2", "builtin:facts-llama").encode()
        try_spec(lora, spoil(content, draw), alone=number % 50 == 0)


LETTERS = [f"letter{n}" for n in range(2000)]


def numbers(start: int, stop: int, form: str = "{}") -> str:
    return f"[{','.join(form.format(number) for number in range(start, stop))}]"


MUCH = {
    "brackets": BASE + "a = " + "[" * 100_000,
    "closed brackets": BASE + "a = " + "[" * 100_000 + "]" * 100_000,
    "braces": BASE + "a = " + "{a=" * 100_000,
    "dots": BASE + ".".join("a" * 50_000) + " = 1",
    "table dots": BASE + "[" + ".".join("a" * 50_000) + "]",
    "a text of 10 MB": BASE + f'study.question = "{"x" * 10_000_000}"',
    "a name of 10 MB": BASE.replace('"s"', f'"{"x" * 10_000_000}"'),
    "an unknown setting of 10 MB": BASE + f"{'x' * 10_000_000} = 1",
    "a path of 10 MB": BASE.replace("builtin:facts-llama", "x" * 10_000_000),
    "a list of a million": BASE + f"[[sweep]]\nlora.r = {numbers(1, 1_000_001)}",
    "a product of 10^12": BASE
    + f"[[sweep]]\nlora.r = {numbers(1, 1001)}\nlora.lora_alpha = {numbers(1, 1001)}\n"
    + f"train.max_steps = {numbers(1, 1001)}\ntrain.learning_rate = {numbers(1, 1001, '{}e-9')}",
    "a product of 2^20000": BASE + "[[sweep]]\n" + "".join(f"lora.{name} = [1, 2]\n" for name in LETTERS),
    "many sweeps": BASE + "".join(f'[[sweep]]\nname = "s{n}"\nlora.r = [{n + 1}]\n' for n in range(800)),
    "many products": BASE
    + "".join(
        f'[[sweep]]\nname = "s{n}"\nlora.r = {numbers(1, 100)}\nlora.lora_alpha = {numbers(n * 100, n * 100 + 100)}\n'
        for n in range(1, 30)
    ),
    "many seeds": BASE + f"study.seeds = {numbers(0, 1_000_000)}",
    "many unknown settings": BASE + "".join(f"train.{name} = 1\n" for name in LETTERS),
    "many unknown tables": BASE + "".join(f"[{name}]\nx = 1\n" for name in LETTERS),
    "many targets": BASE + f"lora.target_modules = [{','.join(text(name) for name in LETTERS)}]",
    "many points by hand": BASE + "[[sweep]]\nconfigurations = " + numbers(0, 20_000, '{{ name = "c{}", lora.r = 1 }}'),
    "a tune of everything": BASE + f"train.learning_rate = {{ tune = {numbers(1, 100_000, '{}e-9')} }}",
    "a number of digits": BASE + "lora.r = " + "9" * 1_000_000,
    "a float of digits": BASE + "train.learning_rate = 0." + "9" * 1_000_000,
    "a large rank": BASE + "lora.r = 2147483647",
    "comments": BASE + "# x\n" * 1_000_000,
    "spaces": BASE + "a =" + " " * 10_000_000 + "1",
    "a key twice": BASE + 'study.name = "t"',
    "a table twice": BASE + "[lora]\nr = 1\n[lora]\nr = 2\n",
    "twins in Unicode": BASE + '[[sweep]]\nname = "é"\nlora.r = [1]\n[[sweep]]\nname = "e\u0301"\nlora.r = [2]\n',
    "twins of case": BASE + '[[sweep]]\nname = "A"\nlora.r = [1]\n[[sweep]]\nname = "a"\nlora.r = [2]\n',
    "nothing": "",
    "a mark of order": "\ufeff\ufeff" + BASE,
    "lines of Windows": BASE.replace("\n", "\r\n"),
    "lines of old": BASE.replace("\n", "\r"),
}
BYTES = {
    "UTF-16": BASE.encode("utf-16"),
    "a byte that is none": BASE.encode() + b"# \xff",
    "a surrogate": BASE.encode() + b'study.question = "\xed\xa0\x80"',
    "zeros": b"\0" * 1_000_000,
    "a zero": BASE.encode() + b"# \0\n",
}


@pytest.mark.parametrize("what", [*MUCH, *BYTES])
def test_too_much_of_something(lora: Oracle, what: str) -> None:
    try_spec(lora, MUCH[what].encode() if what in MUCH else BYTES[what])


SETTINGS = [
    *("study.name", "study.question", "model.path", "model.revision", "data.path", "data.name", "data.revision"),
    *(
        "data.template.prompt",
        "data.template.completion",
        "data.columns.question",
        "lora.target_modules",
        "report.path",
    ),
    *("evaluate.primary", "sweep.name", "point.name", "lora.rank_pattern", "evaluate.metrics", "data.split.train"),
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_names_that_are_more_than_names(lora: Oracle, setting: str, full: bool) -> None:
    for name in NAMES if full else NAMES[:: max(1, len(NAMES) // 8)]:
        value = text(name)
        more = {
            "sweep.name": f"[[sweep]]\nname = {value}\nlora.r = [1]\n",
            "point.name": f"[[sweep]]\nconfigurations = [{{ name = {value}, lora.r = 1 }}]\n",
            "lora.rank_pattern": f"lora.rank_pattern = {{ {value} = 3 }}\n",
            "evaluate.metrics": f"evaluate.metrics = [{value}]\n",
            "data.template.prompt": f'data.template = {{ prompt = {value}, completion = "{{answer}}" }}\n',
            "data.template.completion": f'data.template = {{ prompt = "{{question}}", completion = {value} }}\n',
        }.get(setting, f"{setting} = {value}\n")
        kept = "".join(line + "\n" for line in BASE.splitlines() if not line.startswith(setting))
        try_spec(lora, (kept + more).encode("utf-8", "replace"))
