"""What differs between two configurations apart from the setting that they are compared along.

What is set independently of the factor and differs is a confound: the comparison is refused, unless a waiver in the
spec allows it, and then it carries a mark. What follows from the factor (trainable parameters from the rank, the rate
of full fine-tuning from the method) is named as its consequence.
"""

from dataclasses import dataclass
from functools import lru_cache

from lorafile.analysis.common.factors import factors, setting_labels, tuned
from lorafile.analysis.common.format import amount
from lorafile.analysis.common.scores import averages
from lorafile.results.environments import between
from lorafile.results.results import Results, grouped, rows_of
from lorafile.specs.tables.methods import METHODS
from lorafile.specs.tables.train import START

# Settings that say which examples there are: figures on different ones cannot be paired, waiver or not.
UNPAIRED = ("data.path", "data.name", "data.revision", "data.split_seed", "data.split.test", "data.split.validation")

# What no method asks for: another run to start from, another optimizer, a step that validation chose.
_CHOSEN = tuple(
    f"train.{name}" for name in (START, "optim", "load_best_model_at_end", "early_stopping_patience", "init_seed")
)

# What alone changes no weight.
_WATCHING = tuple(f"train.{name}" for name in ("eval_steps", "max_eval_samples", "metric_for_best_model"))


@dataclass(frozen=True)
class Difference:
    """One thing in which two configurations differ.

    :ivar setting: its dotted name, or `environment`, or what follows from a setting
    :ivar one: its value in the first, `other` in the second, as a reader sees them
    :ivar kind: `confound` (refuses), `waived` (is marked), `provenance` (is marked: how it was run, and not what),
        `consequence` (is named)
    """

    setting: str
    one: str
    other: str
    kind: str

    def text(self) -> str:
        """Return `train.num_train_epochs 3 against 5`."""
        return f"{self.setting} {self.one} against {self.other}" if self.one or self.other else self.setting


def differing(results: Results, one: str, other: str, factor: str, waive: tuple[str, ...] = ()) -> list[Difference]:
    """Return what differs between two configurations apart from a factor, confounds first.

    :param factor: the setting of the comparison; empty: every setting of the study is what is compared
    :param waive: settings that are allowed to differ
    """
    settings = [setting for setting in factors(results, [one, other]) if setting != factor] if factor else []
    differences = []
    for setting in settings:
        harmless = _follows(results, setting, factor, one, other) or _only_watches(results, setting, one, other)
        kind = "consequence" if harmless else _kind(setting, waive)
        differences.append(Difference(setting, *_labels(results, setting, one, other), kind))
    differences += _tuned(results, one, other)
    texts = [text for pair in ((one, other), (one, one), (other, other)) for text in between(results, *pair, "quality")]
    kind = _kind("environment", waive)  # of the machines and libraries that the runs come from
    differences += [Difference(f"environment ({text})", "", "", kind) for text in dict.fromkeys(texts)]
    origin, other_origin = ("elsewhere" if name in _trained_elsewhere(results) else "here" for name in (one, other))
    if origin != other_origin:
        differences.append(Difference("imported", origin, other_origin, _kind("imported", waive)))
    failed = [text for name in (one, other) if (text := failed_checks(results).get(name))]
    if failed:
        differences.append(Difference(f"trainer_checks ({' '.join(failed)})", "", "", _kind("trainer_checks", waive)))
    alone, other_alone = (_packed(results).get(name, "alone") for name in (one, other))
    if alone != other_alone:
        differences.append(Difference("training in a pack", alone, other_alone, "provenance"))
    parameters = averages(results, "trainable_parameters")
    first, second = parameters.get(one), parameters.get(other)
    if first is not None and second is not None and first != second:
        sizes = amount("count", first), amount("count", second)
        differences.append(Difference("trainable parameters", *sizes, "consequence"))
    return sorted(differences, key=lambda row: ("confound", "waived", "provenance", "consequence").index(row.kind))


def _kind(setting: str, waive: tuple[str, ...]) -> str:
    return "waived" if setting in waive else "confound"


def _labels(results: Results, setting: str, one: str, other: str) -> tuple[str, str]:
    """Return a setting's value in both configurations; `none` where it does not apply."""
    labels = setting_labels(results, setting, [one, other])
    return labels.get(one, "none"), labels.get(other, "none")


def _only_watches(results: Results, setting: str, one: str, other: str) -> bool:
    """Return whether a setting says how runs were evaluated while they trained, and no evaluation chose anything."""
    if setting not in _WATCHING:
        return False
    chosen: dict[str, bool] = {}
    for name, outcome, selected in rows_of(results.runs, "configuration", "outcome", "selected_on"):
        if outcome == "done":
            chosen[str(name)] = chosen.get(str(name), False) or bool(selected)
    return not (chosen.get(one, True) or chosen.get(other, True))


def _follows(results: Results, setting: str, factor: str, one: str, other: str) -> bool:
    """Return whether a setting's difference follows from the factor's, and is no choice of its own."""
    section = setting.partition(".")[0]
    if factor == "method" or results.methods[one] != results.methods[other]:
        # another method has other settings; the rate of full fine-tuning is that method's own
        chosen = setting in _CHOSEN and "none" not in (results.methods[one], results.methods[other])
        return factor == "method" and (section in METHODS or section in ("train", "none")) and not chosen
    solved = any(rank is not None for rank in results.setting("rank").values())
    return solved and setting in ("lora.r", "lora.lora_alpha")  # solved for equal parameters


def _tuned(results: Results, one: str, other: str) -> list[Difference]:
    """Return the settings that were chosen for each by itself, among the same candidates, and are not the same."""
    chosen = tuned(results)
    labels = {key: _labels(results, key, one, other) for key in chosen[one] if key in chosen[other]}
    return [Difference(f"tuned {key}", *pair, "consequence") for key, pair in labels.items() if pair[0] != pair[1]]


@lru_cache(maxsize=8)
def _packed(results: Results) -> dict[str, str]:
    """Return configuration -> whether its runs were trained in packs: `packed`, or `partly`; nothing where alone."""
    runs = grouped((str(name), (count or 0) > 1) for name, count in rows_of(results.runs, "configuration", "packed"))
    return {name: "packed" if all(flags) else "partly" for name, flags in runs.items() if any(flags)}


@lru_cache(maxsize=8)
def failed_checks(results: Results) -> dict[str, str]:
    """Return configuration -> the first check that a run of its trainer failed, for those of which one did."""
    runs = rows_of(results.runs, "configuration", "failed_checks")
    return {str(name): str(text).partition(". ")[0].rstrip(".") for name, text in reversed(list(runs)) if text}


@lru_cache(maxsize=8)
def _trained_elsewhere(results: Results) -> frozenset[str]:
    """Return the configurations whose runs were imported, and not trained here, under this protocol."""
    runs = rows_of(results.runs, "configuration", "imported")
    return frozenset(str(name) for name, flag in runs if flag)
