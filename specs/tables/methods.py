"""The methods that a study may compare, and a settings table for each.

A method is called as PEFT calls it, in lower case; its table has the settings of its config class by their own names.
What a method can do is in `methods.json`, which `engine/probe_methods.py` writes; what PEFT does not tell, in
`methods.toml`; its settings, with their types and defaults, in `snapshot.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import create_model
from pydantic_core import core_schema

from lorafile.specs.snapshot import Overrides, declared, settings_table, snapshot
from lorafile.specs.tables.lora import INNER, LORA, VARIANTS, lora_table
from lorafile.specs.values import (
    Alpha,
    Natural,
    Number,
    Pattern,
    Positive,
    PositiveNumber,
    Settings,
    Share,
    Targets,
    Text,
    Texts,
)

_COMMON = "*"
# Types that say more than PEFT's own, by the names of settings.
_TYPES: dict[str, Any] = {
    "target_modules": Targets,
    "feedforward_modules": Targets,
    "layers_to_transform": LORA.types["layers_to_transform"],
    "modules_to_save": Texts | None,
    "rank_pattern": dict[Pattern, Positive],
    "alpha_pattern": dict[Pattern, PositiveNumber],
    **dict.fromkeys(("r", "init_r", "target_r", "deltaT", "num_virtual_tokens", "adapter_len"), Positive),
    **dict.fromkeys(("effective_rank", "encoder_hidden_size", "adapter_layers"), Positive | None),
    **dict.fromkeys(("beta1", "beta2"), Share),
    **dict.fromkeys(("d_initial", "tinit", "tfinal", "orth_reg_weight"), Number),
    "init_lora_weights": bool,
    "decompose_factor": Literal[-1] | Positive,
    "token_indices": list[Natural],
    "prompt_tuning_init": Literal["SAMPLE_VOCAB", "TEXT", "RANDOM"],
    "prompt_tuning_init_text": Text | None,
    "encoder_reparameterization_type": Literal["MLP", "LSTM"],
    "variant": Literal["road_1", "road_2", "road_4"],
}


@dataclass(frozen=True)
class Method:
    """A method that PEFT trains.

    :ivar config: peft's config class; `title`: what the method is called in text; `paper`: its arXiv id, or an address
    :ivar rank, alpha: its settings of rank and scale, where it has them
    :ivar parameters: formulas of how many it trains: `layer`, `shared`, `whole`; `rank_step`: what divides ranks
    :ivar jumps: whether its parameters may fall at some ranks and grow at others
    :ivar second_matrix: whether it has B matrices, which LoRA+ gives a rate of their own
    :ivar divides: the setting that divides the dimensions of every layer; `required`: one that a spec has to give
    :ivar package: what it needs besides the packages of training; the extra `methods` installs it
    :ivar model_types: the only types of models that PEFT knows it for; empty: all
    :ivar bases: on what it trains apart from a float32 base: `int8`, `nf4`, `bfloat16`
    :ivar checkpoints: whether activations can be recomputed (gradient checkpointing)
    :ivar merges: whether what it learned can be written into the base's weights
    :ivar virtual: `embeddings` or `cache`, where it puts something before a text instead of changing layers
    """

    config: str
    title: str
    paper: str
    own: Overrides
    parameters: Mapping[str, str]
    rank: str = ""
    alpha: str = ""
    jumps: bool = False
    second_matrix: bool = False
    divides: str = ""
    required: str = ""
    package: str = ""
    model_types: tuple[str, ...] = ()
    bases: frozenset[str] = frozenset()
    checkpoints: bool = True
    merges: bool = True
    virtual: str = ""

    @property
    def matches(self) -> bool:
        """Whether its rank can be solved for a number of parameters; AdaLoRA's changes while it trains."""
        return bool(self.rank) and self.rank != "init_r"

    @property
    def saves_modules(self) -> bool:
        """Whether modules can be trained whole next to it, as a classification head is."""
        return "modules_to_save" in snapshot()[self.config] and "modules_to_save" not in self.own.refused

    def trains_on(self, kind: str) -> bool:
        """Return whether it trains on a base of a kind: `int8`, `nf4`; on any other quantizer's where on both."""
        return kind in self.bases if kind in ("int8", "nf4", "bfloat16") else {"int8", "nf4"} <= self.bases


@cache
def probed() -> dict[str, dict[str, Any]]:
    """Return method -> what the probe found of it, for each member of `PeftType`."""
    rows: dict[str, dict[str, Any]] = json.loads(
        (files("lorafile.specs") / "methods.json").read_text(encoding="utf-8")
    )["methods"]
    return rows


def stays_out(name: str) -> str:
    """Return why a method of PEFT's is not offered; nothing where it is, or where PEFT has none of that name."""
    return str(declared().get(name, {}).get("stays_out") or probed().get(name, {}).get("refused", ""))


def _method(name: str) -> Method:
    row, lines = probed()[name], declared()[name]
    words = ("title", "paper", "rank", "jumps", "alpha", "second_matrix", "divides", "required", "package")
    own = LORA if name == "lora" else _overrides(row["config"], lines, bool(row["virtual"]))
    return Method(
        row["config"],
        own=own,
        parameters={word: lines[word] for word in ("layer", "shared", "whole", "rank_step") if word in lines},
        model_types=tuple(lines.get("model_types", ())),
        bases=frozenset(kind for kind in ("int8", "nf4", "bfloat16") if row.get(kind) is True),
        checkpoints=row.get("checkpointing") is True,
        merges=row.get("merges") is True,
        virtual=row["virtual"],
        **{word: lines[word] for word in words if word in lines},
    )


def _overrides(config: str, lines: dict[str, Any], virtual: bool) -> Overrides:
    """Return our own types, defaults, help and refusals of a config class: a method's, then those of all."""
    common, rows = declared()[_COMMON], snapshot()[config]
    refused = common["refused"] | ({"modules_to_save": "PEFT trains only what stands before a text"} if virtual else {})
    refused |= lines.get("refused", {})
    if reason := refused.pop(_COMMON, ""):  # AdaLoRA's class has all of LoRA's settings
        refused = {**dict.fromkeys((*LORA.refused, *INNER, *VARIANTS), reason), **refused}
    placed = {"target_modules": "all-linear"}  # as for LoRA, so that methods are compared at one placement
    defaults = placed | ({lines["divides"]: None} if "divides" in lines else {}) | lines.get("defaults", {})
    dropout = {name: LORA.help["lora_dropout"] for name in rows if name.endswith("_dropout")}
    return Overrides(
        types={name: _type(name, row, lines) for name, row in rows.items()},
        defaults=defaults,
        help={**LORA.help, **dropout, **common["help"], **_without_start(rows), **lines.get("help", {})},
        refused={name: reason for name, reason in refused.items() if name in rows},
    )


def _without_start(rows: dict[str, Any]) -> dict[str, str]:
    """Return PEFT's own help of how a method starts, where there is more than one way."""
    row = rows.get("init_weights")
    return {"init_weights": row["help"]} if row and row["type"] != "bool" else {}


def _type(name: str, row: dict[str, Any], lines: dict[str, Any]) -> Any:
    if name == lines.get("alpha"):
        return Alpha
    if name == lines.get("divides"):
        return Positive | None
    if name in _TYPES:
        return _TYPES[name] | None if name == "r" and row["default"] is None else _TYPES[name]
    if name.endswith("dropout"):
        return Share
    return Natural if row["type"] == "int" else row["type"]


METHODS: dict[str, Method] = {name: _method(name) for name in declared() if name in probed() and not stays_out(name)}


def refusal(path: tuple[str | int, ...]) -> str:
    """Return why a spec cannot name a setting that peft has, or nothing."""
    method = METHODS.get(str(path[0])) if len(path) > 1 else None
    if method is None:
        return ""
    config, own = method.config, method.own
    if len(path) > 2:
        config, own = INNER.get(str(path[1]), ("", Overrides()))
    reason = own.refused.get(str(path[-1]))
    return f"is a setting of peft.{config} that a spec cannot name: {reason}" if reason else ""


@cache
def method_table(method: str) -> type[Settings]:
    """Return a method's table. It is made when it is first asked for, since a study names a few of many."""
    if method == "lora":
        return lora_table()
    about = METHODS[method]
    doc = f"{about.title[0].upper()}{about.title[1:]}: settings of `peft.{about.config}`, by their own names."
    return settings_table(f"{about.config.removesuffix('Config')}Settings", doc, about.config, about.own)


@cache
def method_defaults(method: str) -> Settings:
    """Return the table of a method of which a spec says nothing."""
    return method_table(method)()


@dataclass(frozen=True)
class Later:
    """The type of a method's table, for pydantic."""

    method: str

    @property
    def table(self) -> type[Settings]:
        """The table itself."""
        return method_table(self.method)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Return how to validate it: as the table does, whose errors keep their places."""
        return core_schema.no_info_plain_validator_function(lambda value: self.table.model_validate(value))


if TYPE_CHECKING:
    MethodName = str
    MethodTables = Settings
else:
    MethodName = Literal[(*METHODS, "head", "full", "none")]
    MethodTables = create_model(
        "MethodTables", __base__=Settings, **{name: (Annotated[Any, Later(name)], None) for name in METHODS}
    )
