"""Where presets put adapters on a model that is at hand: its own names of modules, and its own layers."""

import re
import textwrap
from collections.abc import Callable, Iterable

from lorafile.graph.target_modules import layer_count
from lorafile.lock.lockfile import ModelLock
from lorafile.specs.target_modules import is_attention, is_mlp, layer_indexes, leaves, shortest_names

PLACING = ("module_sweep", "placement")
# What attention calls its layers of queries, keys and values, and those that hold several of them.
_QUERIES = ("q_proj", "query", "query_proj", "q_lin", "q")
_KEYS = ("k_proj", "key", "key_proj", "k_lin", "k")
_VALUES = ("v_proj", "value", "value_proj", "v_lin", "v")
_FUSED = ("c_attn", "qkv_proj", "query_key_value", "Wqkv", "in_proj", "qkv", "W_pack")
_LAYERS = ("first-third", "middle-third", "last-third", "alternate")
_WORDS = (
    'name = "modules" # generic names for layers of any model; lora plan shows what they stand for',
    'lora.target_modules = ["attention", "mlp", "all-linear"]',
)
_EXPERTS = "parameters with one matrix per expert; they are not modules, so target_modules cannot name them"
_WIDTH = 110
Row = tuple[str, str]  # a candidate as TOML, and a comment


def placed_preset(text: str, name: str, model: ModelLock | None) -> str:
    """Return a preset's text with sweeps of modules and layers that fit a model.

    :param name: of the preset; those that sweep neither stay as they are
    :param model: None: nothing is known of it, and words stand for its modules and layers
    """
    if name not in PLACING:
        return text
    if model is None:
        return _with_sweep(text, "modules", list(_WORDS))
    rows = _by_name(model) if name == "module_sweep" else _by_word(model)
    lines = ['name = "modules"', *_candidates("lora.target_modules", rows)] if rows else []
    text = _with_sweep(text, "modules", lines, _experts(model))
    layers = _layer_rows(model)
    lines = ['name = "layers" # on all modules of these layers, which are counted from 0']
    return _with_sweep(text, "layers", [*lines, *_candidates("lora.layers_to_transform", layers)] if layers else [])


def _with_sweep(text: str, name: str, lines: list[str], more: list[str] | None = None) -> str:
    """Return a text with other lines in the sweep of a name, and another sweep behind it; without lines it goes."""
    sweeps = ["\n".join(("[[sweep]]", *sweep)) + "\n\n" for sweep in (lines, more) if sweep]
    block = rf'\[\[sweep\]\]\nname = "{name}".*?(?=\[\[sweep\]\]|\Z)'
    return re.sub(block, lambda _: "".join(sweeps), text, count=1, flags=re.DOTALL)


def _candidates(setting: str, rows: list[Row]) -> list[str]:
    lines = [f"{setting} = ["]
    for value, comment in rows:
        wrapped = textwrap.wrap(f"{value},", _WIDTH, initial_indent="  ", subsequent_indent="    ")
        lines += [*wrapped[:-1], wrapped[-1] + (f" # {comment}" if comment else "")]
    return [*lines, "]"]


def _by_name(model: ModelLock) -> list[Row]:
    """Return the placements of `module_sweep`: attention's layers, the feed-forward ones, what is neither, and all."""
    attention, mlp, others = _parts(model)
    queries, keys, values, fused = (_called(attention, names) for names in (_QUERIES, _KEYS, _VALUES, _FUSED))
    rows: list[tuple[set[str], str, str]] = [(fused, "", "queries, keys and values in one layer")]
    if queries and values:
        rows.append((queries | values, "", "as in the LoRA paper"))
        rows.append((queries | keys | values, "", ""))
    rows += [(attention, '"attention"', "all of attention"), (mlp, '"mlp"', "the feed-forward layers")]
    if attention or mlp:
        rows.append((others, "", "neither attention nor feed-forward"))
    else:
        rows += [(_called(others, (name,)), "", "") for name in leaves(others)]
    rows.append((set(model.modules), '"all-linear"', "all linear layers"))
    return _unique(rows, model)


def _by_word(model: ModelLock) -> list[Row]:
    """Return the placements of `placement`: the words that name something in a model, else its names one by one."""
    attention, mlp, others = _parts(model)
    rows: list[Row] = []
    if not attention and not mlp and len(leaves(others)) > 1:
        rows = _unique([(_called(others, (name,)), "", "") for name in leaves(others)], model)
    for word, modules in (("attention", attention), ("mlp", mlp), ("all-linear", set(model.modules))):
        if modules and not (word == "all-linear" and len(rows) == 1 and not others):
            names = shortest_names(modules, _everything(model))
            comment = "" if word == "all-linear" or _numbered(names) else ", ".join(names)
            rows.append((f'"{word}"', comment))
    return rows


def _parts(model: ModelLock) -> tuple[set[str], set[str], set[str]]:
    """Return a model's linear layers: of attention, of feed-forward blocks, and the others."""
    choices: tuple[Callable[[str], bool], ...] = (is_attention, is_mlp)
    attention, mlp = ({module for module in model.modules if chosen(module)} for chosen in choices)
    return attention, mlp, set(model.modules) - attention - mlp


def _called(modules: Iterable[str], names: tuple[str, ...]) -> set[str]:
    return {module for module in modules if module.rpartition(".")[2] in names}


def _everything(model: ModelLock) -> list[str]:
    return [*model.modules, *model.reserved]


def _unique(placements: list[tuple[set[str], str, str]], model: ModelLock) -> list[Row]:
    """Return placements of different modules, each by the names that PEFT finds it by, or by its word."""
    rows: dict[frozenset[str], Row] = {}
    for modules, word, comment in placements:
        names = shortest_names(modules, _everything(model))
        listed = "[" + ", ".join(f'"{name}"' for name in names) + "]"
        value = word if word == '"all-linear"' or _numbered(names) else listed
        if modules and value:
            rows.setdefault(frozenset(modules), (value, comment))
    return list(rows.values())


def _numbered(names: Iterable[str]) -> bool:
    """Return whether a name is one of a single layer: no list that anybody would write."""
    return any(part.isdigit() for name in names for part in name.split("."))


def _experts(model: ModelLock) -> list[str]:
    if not model.experts:
        return []
    listed = ", ".join(f'"{name}"' for name in sorted({".".join(name.split(".")[-2:]) for name in model.experts}))
    modules = '[[], "all-linear"]' if model.modules else "[[]]"
    return [
        f'name = "experts" # {_EXPERTS}',
        f"lora.target_modules = {modules}",
        f"lora.target_parameters = [[{listed}]]",
    ]


def _layer_rows(model: ModelLock) -> list[Row]:
    """Return the thirds of a model's layers and every second one, as far as they differ; none of a single layer."""
    count, there = layer_count(model.modules), set()
    for module in model.modules:
        there.add(next(int(part) for part in module.split(".") if part.isdigit()))
    rows: dict[str, str] = {}
    for word in _LAYERS:
        layers = [layer for layer in layer_indexes(word, count) if layer in there]
        if layers and len(layers) < len(there):
            rows.setdefault(str(layers), f"{word.replace('-', ' ')} of {count} layers")
    return list(rows.items())
