"""The tables of PEFT's methods in a spec: names, defaults, refusals with their reasons. Needs no torch."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from lorafile import specs
from lorafile.errors import LoraError, NodeError, SpecError
from lorafile.graph.build import build
from lorafile.graph.target_modules import placed
from lorafile.lock.lockfile import ModelLock, resolve
from lorafile.specs.snapshot import snapshot
from lorafile.specs.tables.lora import INNER, LORA
from lorafile.specs.tables.methods import METHODS, method_table

BASE = 'study.name = "s"\nmodel.path = "m"\ndata.path = "d"\n'
BUILTIN = 'study.name = "s"\nmodel.path = "builtin:facts-llama"\ndata.path = "builtin:facts"\n'
TOY = ModelLock(
    revision=None,
    weights="",
    config="",
    tokenizer="",
    dtype="float32",
    parameters=0,
    bytes=0,
    settings={"vocab_size": 50},
    modules={f"h.{n}.{part}": [8, 8] for n in range(3) for part in ("attn.c_attn", "attn.c_proj", "mlp.c_proj")},
    tensors={"wte.weight": [50, 8], "h.0.ln_1.weight": [8], "h.0.ln_1.bias": [8], "ln_f.weight": [8]},
)


def message(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        specs.parse(BASE + text, Path("s.toml"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('method = "ia33"', "s.toml:4:1: method: should be one of "),
        ('method = "ia33"', 'did you mean "ia3"?'),
        ('[[sweep]]\nmethod = ["prompt-tuning"]', "s.toml:5:11: sweep[0].method[0]: should be one of"),
        ('[[sweep]]\nmethod = ["prompt-tuning"]', 'did you mean "prompt_tuning"?'),
        (
            '[ia3]\ntarget_module = "mlp"',
            's.toml:5:1: ia3.target_module: unknown setting; did you mean "target_modules"?',
        ),
        ("[vera]\nd_inital = 1", 's.toml:5:1: vera.d_inital: unknown setting; did you mean "d_initial"?'),
        ("[adalora]\ntfinal = -1", "s.toml:5:1: adalora.tfinal: should be at least 0, not -1"),
        ("[lokr]\nrank_dropout = 1.0", "s.toml:5:1: lokr.rank_dropout: should be less than 1, not 1.0"),
        ("[lora]\nnum_virtual_tokens = 3", "unknown setting; it belongs in [prompt_tuning]"),
        (
            "[lora]\neva_config = { roh = 2.0 }",
            's.toml:5:16: lora.eva_config.roh: unknown setting; did you mean "rho"?',
        ),
        ('[lora]\ninit_lora_weights = "pisa"', 'did you mean "pissa"?'),
        ("[[sweep]]\nia3.feedforward_moduls = [['x']]", 'did you mean "feedforward_modules"?'),
        (
            'method = "loha"\nquantization = "nf4"',
            "s.toml:5:1: quantization: PEFT does not support LoHa on a 4-bit base",
        ),
        (
            '[lora]\ninit_lora_weights = "loftq"',
            '"loftq" needs the error of a 4-bit base; set quantization = "nf4"',
        ),
        ('quantization = "nf4"\nlora.init_lora_weights = "pissa"', '"pissa" moves part of the base\'s weights'),
        ('lora.r = 3\nlora.init_lora_weights = "orthogonal"', '"orthogonal" needs an even rank, not 3'),
        (
            'method = "ia3"\ntrain.loraplus_lr_ratio = 16',
            'LoRA+ sets a learning rate for the B matrices, and method = "ia3" has none',
        ),
        ('[[sweep]]\nmethod = ["vera"]\ntrain.loraplus_lr_ratio = [4.0]', 'and method = "vera" has none'),
        (
            'method = "prompt_tuning"\nprompt_tuning.prompt_tuning_init = "TEXT"',
            '"TEXT" needs a prompt_tuning_init_text',
        ),
        (
            '[[sweep]]\nquantization = ["int8"]\nmethod = ["glora", "lora"]',
            "PEFT does not support GLoRA on an 8-bit base; exclude",
        ),
        (
            '[[sweep]]\nmethod = ["lora", "full"]\nquantization = ["nf4"]',
            'exclude the point: exclude = [{ method = "full", quantization = "nf4" }]',
        ),
        (
            '[[sweep]]\nconfigurations = [{ method = "full", quantization = "nf4" }]',
            "cannot be fine-tuned in full; remove the point from configurations",
        ),
        ('method = "xlora"', 's.toml:4:1: method: PEFT\'s "xlora" is not offered: it mixes finished LoRA adapters'),
        ('[[sweep]]\nmethod = ["lora", "lily"]', 'PEFT\'s "lily" is not offered: its router averages over all tokens'),
        ('method = "trainable_tokens"', '"trainable_tokens" needs trainable_tokens.token_indices'),
        (
            'method = "prefix_tuning"\ntrain.gradient_checkpointing = true',
            "train.gradient_checkpointing: PEFT does not support it with prefix tuning",
        ),
    ],
)
def test_mistakes_are_told_where_they_stand_with_what_was_meant(text: str, told: str) -> None:
    assert told in message(text)


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_of_pefts_is_taken_or_refused_with_a_reason(method: str) -> None:
    known = METHODS[method]
    table: Any = method_table(method)
    for name, row in snapshot()[known.config].items():
        if name in known.own.refused:
            told = message(f"[{method}]\n{name} = 1")
            assert f"s.toml:5:1: {method}.{name}: is a setting of peft.{known.config} that a spec cannot name: " in told
            assert len(known.own.refused[name]) > 15
        else:
            assert table.model_fields[name].description, row


@pytest.mark.parametrize("setting", INNER)
def test_settings_of_an_initialisation_count_only_where_it_is_the_one(setting: str) -> None:
    """Off or by default, they change no key; a sweep of initialisations may keep them in [lora]."""
    word = setting.removesuffix("_config")
    sweep = f'[[sweep]]\nlora.init_lora_weights = [true, "{word}"]\n'
    plain, chosen = specs.parse(BASE + sweep, Path("s.toml")).configurations
    assert plain.adapter is not None and chosen.adapter is not None
    assert plain.adapter[setting] is None
    assert chosen.adapter[setting]
    named = next(iter(chosen.adapter[setting].items()))
    written = specs.parse(BASE + sweep + f"[lora.{setting}]\n{named[0]} = {_toml(named[1])}\n", Path("s.toml"))
    assert [c.identity() for c in written.configurations] == [plain.identity(), chosen.identity()]


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def test_loraplus_is_left_out_where_a_method_has_no_second_matrix() -> None:
    text = '[train]\nloraplus_lr_ratio = 8.0\n[[sweep]]\nmethod = ["lora", "adalora", "ia3", "full"]\n'
    found = specs.parse(BASE + text, Path("s.toml")).configurations
    assert [c.train and c.train.loraplus_lr_ratio for c in found] == [8.0, 8.0, None, None]


def test_alpha_follows_the_rank_that_the_method_begins_with() -> None:
    text = '[[sweep]]\nmethod = ["lora", "adalora", "loha", "lokr"]\n'
    adapters = [c.adapter or {} for c in specs.parse(BASE + text, Path("s.toml")).configurations]
    assert [(a.get("lora_alpha"), a.get("alpha")) for a in adapters] == [(32, None), (24, None), (None, 8), (None, 8)]


def test_ia3_names_feed_forward_modules_among_its_targets() -> None:
    """`c_proj` is the last part of both, so that one name could not tell them apart."""
    found = placed("ia3", {"target_modules": "all-linear", "feedforward_modules": "mlp"}, TOY)
    assert found["target_modules"] == ["attn.c_proj", "c_attn", "mlp.c_proj"]
    assert found["feedforward_modules"] == ["mlp.c_proj"]
    only = placed("ia3", {"target_modules": ["c_attn"], "feedforward_modules": "mlp"}, TOY)
    assert only == {"target_modules": ["c_attn"], "feedforward_modules": []}


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("vera", {"target_modules": ["c_atn"]}, 'vera.target_modules: no linear layer of the model is named "c_atn"'),
        ("ln_tuning", {"target_modules": ["ln_2"]}, 'ln_tuning.target_modules: no norm of the model is named "ln_2"'),
        ("lora", {"target_modules": "attention", "rank_pattern": {"c_atn": 2}}, 'did you mean "c_attn"?'),
        ("lora", {"target_modules": "attention", "rank_pattern": {"mlp.c_proj": 2}}, "matches none of the adapted"),
        ("loha", {"target_modules": "mlp", "alpha_pattern": {"q": 2}}, "loha.alpha_pattern:"),
        (
            "lora",
            {"target_modules": "mlp", "modules_to_save": ["wtee"]},
            'no module named "wtee"; did you mean "wte"?',
        ),
        (
            "lora",
            {"target_modules": "mlp", "trainable_token_indices": [49, 50]},
            "50 is not a token of a model with 50",
        ),
    ],
)
def test_what_the_model_does_not_have_is_told_with_the_methods_table(
    method: str, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(NodeError) as caught:
        placed(method, settings, TOY)
    assert told in str(caught.value)


def test_biases_of_a_half_precision_base_are_refused() -> None:
    spec = specs.parse(BUILTIN + 'model.dtype = "bfloat16"\nlora.bias = "all"\n', Path("s.toml"))
    with pytest.raises(LoraError, match="small steps are lost in bfloat16"):
        build(spec, resolve(spec, None)[0])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_plan_on_the_built_in_model(method: str) -> None:
    needed = "trainable_tokens.token_indices = [5]\n" if METHODS[method].required else ""
    spec = specs.parse(BUILTIN + f'method = "{method}"\n{needed}', Path("s.toml"))
    graph = build(spec, resolve(spec, None)[0])
    adapter = graph.sections[method]["adapter"]
    assert adapter["method"] == method
    assert None not in adapter.values()


def test_a_new_setting_of_loraconfig_shows_up() -> None:
    """Every field of the installed PEFT is offered, refused with a reason, or PEFT's own business."""
    peft = pytest.importorskip("peft")
    from lorafile.engine.write_snapshot import INTERNAL

    fields = set(peft.LoraConfig.__dataclass_fields__)
    offered = set(method_table("lora").model_fields)
    assert fields - INTERNAL - offered == set(LORA.refused), "add the setting to specs/tables/lora.py"
    assert offered <= fields
    assert not INTERNAL & (offered | set(LORA.refused))


def test_every_initialization_of_pefts_is_one_of_a_spec() -> None:
    peft = pytest.importorskip("peft")
    hint = get_type_hints(peft.LoraConfig)["init_lora_weights"]
    words = {word for part in get_args(hint) if get_origin(part) is Literal for word in get_args(part)}
    words -= {"pissa_niter_[number of iters]"}
    assert len(words) >= 8
    for word in words:
        more = {"loftq": 'quantization = "nf4"\n'}.get(word, "")
        specs.parse(f'{BASE}{more}lora.init_lora_weights = "{word}"\n', Path("s.toml"))


VARIANTS_WRONG = {
    'lora.velora_config.init_type = "batch_average_once"': "init_type: should be one of",
    "lora.use_dora = true\nlora.velora_config = {}": "VeLoRA cannot be combined with lora.use_dora",
    'quantization = "nf4"\nlora.velora_config = {}': "PEFT does not support VeLoRA on a quantized base",
    "lora.use_bdlora.nblocks = 2": "names no modules; set target_modules_bd_a or target_modules_bd_b",
    'lora = { init_lora_weights = "pissa", use_bdlora = { target_modules_bd_a = ["o_proj"] } }': "have an init",
}


@pytest.mark.parametrize("text", VARIANTS_WRONG)
def test_what_a_variant_cannot_be_combined_with_is_said(text: str) -> None:
    assert VARIANTS_WRONG[text] in message(text)
