"""What differs between two configurations beside the setting that they are compared along: confounds, consequences.

What is set independently of the factor and differs is a confound: the comparison is refused, unless a waiver in the
spec allows it, and then it carries a mark. What follows from the factor (trainable parameters from the rank, the rate
of full fine-tuning from the method) is named as its consequence.
"""

from dataclasses import dataclass
from functools import lru_cache

from lorafile.analysis.common.factors import factors, label, setting_values, tuned
from lorafile.analysis.common.format import amount
from lorafile.analysis.common.scores import averages
from lorafile.results.environments import between
from lorafile.results.results import Results, cells, rows_of
from lorafile.specs.tables.methods import METHODS

# Settings that say which examples there are: figures on different ones cannot be paired, waiver or not.
UNPAIRED = ("data.path", "data.name", "data.revision", "data.split_seed", "data.split.test", "data.split.validation")


@dataclass(frozen=True)
class Difference:
    """One thing in which two configurations differ.

    :ivar setting: its dotted name, or `environment`, or what follows from a setting
    :ivar one: its value in the first, `other` in the second, as a reader sees them
    :ivar kind: `confound` (refuses), `waived` (is marked), `consequence` (is named)
    """

    setting: str
    one: str
    other: str
    kind: str

    def text(self) -> str:
        """Return `train.num_train_epochs 3 against 5`."""
        return f"{self.setting} {self.one} against {self.other}" if self.one or self.other else self.setting


def differing(results: Results, one: str, other: str, factor: str, waive: tuple[str, ...] = ()) -> list[Difference]:
    """Return what differs between two configurations beside a factor, confounds first.

    :param factor: the setting of the comparison; empty: every setting of the study is what is compared
    :param waive: settings that are allowed to differ
    """
    found = []
    for setting in factors(results, [one, other]) if factor else ():
        if setting == factor:
            continue
        mine, theirs = (_value(results, name, setting) for name in (one, other))
        kind = "consequence" if _follows(results, setting, factor, one, other) else _kind(setting, waive)
        found.append(Difference(setting, mine, theirs, kind))
    found += _tuned(results, one, other)
    found += _environments(results, one, other, waive)
    found += _imported(results, one, other, waive)
    found += _consequences(results, one, other)
    return sorted(found, key=lambda row: ("confound", "waived", "consequence").index(row.kind))


def _kind(setting: str, waive: tuple[str, ...]) -> str:
    return "waived" if setting in waive else "confound"


def _value(results: Results, name: str, setting: str) -> str:
    known = setting_values(results, setting, [name])
    return label(setting, known[name]) if name in known else "none"


def _follows(results: Results, setting: str, factor: str, one: str, other: str) -> bool:
    """Return whether a setting's difference follows from the factor's, and is no choice of its own."""
    section = setting.partition(".")[0]
    by_method = results.methods
    if factor == "method" or by_method[one] != by_method[other]:
        # another method has other settings; the rate of full fine-tuning is that method's own
        return factor == "method" and (section in METHODS or section in ("train", "none"))
    solved = cells(results.configurations, "rank")
    matched = any(value is not None for value in solved)
    return matched and setting in ("lora.r", "lora.lora_alpha")  # solved for equal parameters


def _tuned(results: Results, one: str, other: str) -> list[Difference]:
    """Return the settings that were chosen for each by itself, among the same candidates, and are not the same."""
    chosen = tuned(results)
    both = [setting for setting in chosen[one] if setting in chosen[other]]
    values = [(f"tuned {setting}", *(_value(results, name, setting) for name in (one, other))) for setting in both]
    return [Difference(setting, mine, theirs, "consequence") for setting, mine, theirs in values if mine != theirs]


def _environments(results: Results, one: str, other: str, waive: tuple[str, ...]) -> list[Difference]:
    """Return what differs between the machines and libraries that the runs of both come from."""
    told = [text for pair in ((one, other), (one, one), (other, other)) for text in between(results, *pair, "quality")]
    kind = _kind("environment", waive)
    return [Difference(f"environment ({text})", "", "", kind) for text in dict.fromkeys(told)]


def _imported(results: Results, one: str, other: str, waive: tuple[str, ...]) -> list[Difference]:
    """Return that one was trained here, under this protocol, and the other elsewhere."""
    imported = _trained_elsewhere(results)
    if (one in imported) == (other in imported):
        return []
    mine, theirs = ("elsewhere" if name in imported else "here" for name in (one, other))
    return [Difference("imported", mine, theirs, _kind("imported", waive))]


@lru_cache(maxsize=8)
def _trained_elsewhere(results: Results) -> frozenset[str]:
    runs = rows_of(results.runs, "configuration", "imported")
    return frozenset(str(name) for name, flag in runs if flag)


def _consequences(results: Results, one: str, other: str) -> list[Difference]:
    """Return what the study measured to follow: the number of trainable parameters."""
    parameters = averages(results, "trainable_parameters")
    mine, theirs = parameters.get(one), parameters.get(other)
    if mine is None or theirs is None or mine == theirs:
        return []
    return [Difference("trainable parameters", amount("count", mine), amount("count", theirs), "consequence")]
