from pathlib import Path

import pytest

from lorafile.graph.build import build
from lorafile.lock.lockfile import resolve
from lorafile.results.study_facts import model_of, topics
from lorafile.specs.load import parse

SPEC = 'study.name = "s"\nmodel.path = "m"\ndata.path = "d"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("lora",)),
        ("lora.use_dora = true\nlora.use_rslora = true", ("lora", "dora", "rslora")),
        ('lora.init_lora_weights = "pissa_niter_4"', ("lora", "start:pissa")),
        ("train.loraplus_lr_ratio = 16.0", ("lora", "loraplus")),
        ("train.optim = 'lion_8bit'", ("lora", "optim:lion_8bit")),
        ('[[sweep]]\nmethod = ["none", "full"]', ()),
        (
            '[[sweep]]\nmethod = ["ia3", "lora"]\nquantization = ["nf4", "int8"]',
            ("ia3", "base:nf4", "base:int8", "lora"),
        ),
        ('quantization = { quant_method = "hqq" }', ("lora", "base:hqq")),
    ],
)
def test_what_a_study_uses_is_known_by_its_settings(text: str, expected: tuple[str, ...]) -> None:
    assert topics(parse(SPEC + text, Path("s.toml")).configurations) == expected


@pytest.mark.parametrize(("written", "loaded"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_a_model_has_the_type_that_the_study_loads_it_in(written: str, loaded: str) -> None:
    """The built-in checkpoint is stored in float32."""
    text = SPEC.replace('"m"', '"builtin:facts-llama"').replace('"d"', '"builtin:facts"')
    spec = parse(f'{text}model.dtype = "{written}"\n', Path("s.toml"))
    assert model_of(build(spec, resolve(spec, None)[0]))["dtype"] == loaded
