"""Why something is new, in the words of a spec: what differs from the nearest finished run."""

from typing import Any, cast

from lorafile.plan.drift import Nearest, describe_differences
from lorafile.specs.tables.quantizations import quantization_settings
from lorafile.state import Node, State

DONE: dict[str, Any] = {
    "input.train": "a" * 64,
    "model.weights": "b" * 64,
    "quantization": None,
    "adapter.method": "lora",
    "adapter.r": 16,
    "adapter.lora_alpha": 32,
    "adapter.lora_dropout": 0.0,
    "adapter.target_modules": ["q_proj", "v_proj"],
    "training.learning_rate": 0.0002,
    "seed": 1,
}


def differences(**changes: Any) -> list[str]:
    return describe_differences(DONE, {**DONE, **{name.replace("__", "."): value for name, value in changes.items()}})


def test_settings_are_called_as_in_a_spec() -> None:
    assert differences(adapter__lora_dropout=0.05, training__learning_rate=0.001) == [
        "lora_dropout 0 → 0.05",
        "learning_rate 0.0002 → 0.001",
    ]
    assert differences(adapter__target_modules=["o_proj"]) == ["target_modules q_proj+v_proj → o_proj"]
    assert differences(adapter__target_modules=list("abcdefg")) == ["target_modules q_proj+v_proj → 7 of them"]
    assert differences(training__learning_rates={"q_proj": 1e-4, "o_proj": 1e-3}) == [
        "learning_rates unset → { q_proj = 0.0001, o_proj = 0.001 }"
    ]


def test_an_alpha_that_follows_the_rank_is_left_out_and_one_that_does_not_is_said() -> None:
    assert differences(adapter__r=32, adapter__lora_alpha=64) == ["r 16 → 32"]
    assert differences(adapter__r=32, adapter__lora_alpha=32.5) == ["r 16 → 32", "lora_alpha 32 → 32.5"]
    assert differences(adapter__lora_alpha=64) == ["lora_alpha 32 → 64"]


def test_what_another_method_or_base_brings_with_it_is_one_difference() -> None:
    full = {name: value for name, value in DONE.items() if not name.startswith("adapter.")}
    assert describe_differences(DONE, {**full, "adapter.method": "full", "adapter.bias": "none"}) == [
        "method lora → full"
    ]
    nf4 = quantization_settings("nf4")
    assert nf4 is not None
    plain = {name: value for name, value in DONE.items() if name != "quantization"}
    quantized = plain | {f"quantization.{name}": value for name, value in nf4.items()}
    assert describe_differences(DONE, quantized) == ["quantization none → nf4"]


def test_digests_are_named_by_what_they_are_of() -> None:
    assert differences(input__train="c" * 64, model__weights="d" * 64) == ["other training data", "other model"]


def test_the_nearest_run_is_named_with_what_differs() -> None:
    known = Nearest(["rank/r=16/seed=1:train"], [DONE], {"k": None})
    assert (
        known.reason({**DONE, "adapter.r": 32, "adapter.lora_alpha": 64}) == "new: r 16 → 32, compared with rank/r=16"
    )
    assert known.reason({**DONE, "seed": 2}) == "new seed"
    assert Nearest([], [], {}).reason(DONE) == "new"


class Finished:
    """A state in which runs of rank 1 and 16 ended in some order."""

    def __init__(self, *ranks: int) -> None:
        self.ranks = ranks

    def finished(self, kind: str) -> list[tuple[Node, str]]:
        sections = [{"adapter": {"method": "lora", "r": rank}, "seed": 1} for rank in self.ranks]
        nodes = [Node(f"{rank}", kind, 1, own, {}) for rank, own in zip(self.ranks, sections, strict=True)]
        return [(node, f"rank/r={node.key}/seed=1:train") for node in nodes]


def test_of_two_that_are_as_near_the_order_in_which_they_ended_decides_nothing() -> None:
    wanted = {"adapter.method": "lora", "adapter.r": 4, "seed": 1}
    said = {Nearest.of(cast(State, Finished(*ranks)), "train").reason(wanted) for ranks in ((1, 16), (16, 1))}
    assert said == {"new: r 1 → 4, compared with rank/r=1"}


def test_metrics_are_named_and_not_their_versions() -> None:
    before = {"input.predictions": "a" * 64, "metrics.exact_match": 1}
    assert describe_differences(before, {**before, "metrics.log_loss": 1}) == ["metric log_loss added"]
    assert describe_differences(before, {"input.predictions": "a" * 64, "metrics.log_loss": 1}) == [
        "metric log_loss added",
        "metric exact_match removed",
    ]
    assert describe_differences(before, {**before, "metrics.exact_match": 2}) == [
        "metric exact_match is computed differently"
    ]
    own = {"input.predictions": "a" * 64, "metric_file": "b" * 64}
    assert describe_differences(before, own) == ["scored by a new metric file"]
    assert describe_differences(own, {**own, "metric_file": "c" * 64}) == ["other metric file"]
