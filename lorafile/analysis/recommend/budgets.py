"""Budgets: what a configuration may cost and has to be able to do, and which configurations keep within one."""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Literal

from lorafile.analysis.common.format import amount, number
from lorafile.analysis.common.scores import CENSORED, COSTS, averages, outcomes, price_of, profiles, unmeasured
from lorafile.analysis.compare.confounders import failed_checks
from lorafile.results.results import Results, cells, rows_of
from lorafile.specs.tables.analysis import AnalysisTable, BudgetTable
from lorafile.specs.values import in_base_units

SERVERS = {"vllm": "vLLM", "tgi": "TGI"}
SHARE = "trainable_share"
TITLES = {name: cost.title for name, cost in COSTS.items()} | {SHARE: "trainable share of the parameters"}


@dataclass(frozen=True)
class Budget:
    """Limits under a name.

    :ivar limits: measure of cost, or `trainable_share` -> the most of it, in base units
    :ivar prefer: the measure by which one is cheaper than another
    :ivar by: what is taken of those that are good enough: the cheapest, or the best
    """

    name: str
    limits: dict[str, float] = field(default_factory=dict)
    servable: str | None = None
    prefer: str = "train_memory"
    by: Literal["cost", "quality"] = "cost"

    @property
    def terms(self) -> list[str]:
        """The limits in words."""
        limits = [f"{TITLES[name]} at most {shown(name, most)}" for name, most in self.limits.items()]
        return limits + ([f"servable by {SERVERS[self.servable]}"] if self.servable else [])


@dataclass(frozen=True)
class Refusal:
    """Why a configuration does not keep within a budget.

    :ivar limit: which limit it is: the name of a cost, `servable`, or how its runs ended
    :ivar over: how many times the limit it needs; NaN where that is no number
    """

    limit: str
    text: str
    over: float = nan


def shown(name: str, value: float) -> str:
    """Return a limit or a cost with its unit."""
    return f"{number(100 * value, 2)}\u202f%" if name == SHARE else amount(COSTS[name].kind, value)


PROFILES = {  # the budgets that ship; a GPU of so much memory has to hold training and generating
    "consumer-8GB": Budget("consumer-8GB", {"train_memory": 8e9, "generate_memory": 8e9}),
    "workstation-24GB": Budget("workstation-24GB", {"train_memory": 24e9, "generate_memory": 24e9}),
    "best-quality": Budget("best-quality", by="quality"),
    "cheapest": Budget("cheapest"),
}


def budgets(results: Results, table: AnalysisTable) -> list[Budget]:
    """Return what a table declares; with nothing declared, the shipped budgets that the study has measured for."""
    declared = [budget_of(name, value) for name, value in table.budgets.items()]
    declared += [PROFILES[name] for name in table.profiles]
    if declared:
        return declared
    table_of_profiles, shipped = profiles(results)[0], []
    for budget in PROFILES.values():  # where nothing generates, as where texts are classified, training alone counts
        known = {name: cells(table_of_profiles, COSTS[name].column) for name in budget.limits}
        limits = {name: budget.limits[name] for name in known if any(value is not None for value in known[name])}
        if "train_memory" in limits or not budget.limits:
            shipped.append(replace(budget, limits=limits))
    return shipped


def budget_of(name: str, value: str | BudgetTable) -> Budget:
    """Return a declared budget in base units; an amount alone is training memory."""
    table = BudgetTable(train_memory=value) if isinstance(value, str) else value
    limits: dict[str, float] = {}
    for setting in (*COSTS, SHARE):
        most = getattr(table, setting, None)
        if most is not None:
            limits[setting] = in_base_units(most)[1] if isinstance(most, str) else float(most)
    return Budget(name, limits, table.servable, table.prefer or "train_memory")


def limited(results: Results, limit: str) -> dict[str, float]:
    """Return configuration -> what a budget limits, where it is known; nothing for training what is not trained."""
    if limit != SHARE:
        return price_of(results, limit)
    trainable, total = averages(results, "trainable_parameters"), averages(results, "total_parameters")
    free = dict.fromkeys((name for name, method in results.methods.items() if method == "none"), 0.0)
    return {name: count / total[name] for name, count in trainable.items() if total.get(name)} | free


def refusals(results: Results, budget: Budget) -> dict[str, list[Refusal]]:
    """Return configuration -> why it does not keep within a budget; those that do are not in it.

    A limit on what was not measured is not kept. Configurations with runs that diverged, ran out of memory, or failed
    a check of their trainer are refused where any other one keeps within the budget.
    """
    prices = {limit: limited(results, limit) for limit in budget.limits}
    elsewhere = _profiled_elsewhere(results)
    reasons: dict[str, list[Refusal]] = {name: [] for name in results.names}
    for name, why in reasons.items():
        for limit, most in budget.limits.items():
            price = prices[limit].get(name)
            if price is None:
                device = elsewhere.get(name) if limit in COSTS and COSTS[limit].source == "profiles" else None
                measured = f"was only measured on {device}" if device else unmeasured(results, limit, name)
                why.append(Refusal(limit, f"its {TITLES[limit]} {measured}", inf))
            elif price > most:
                over = price / most if most else inf
                why.append(Refusal(limit, f"its {TITLES[limit]} is {shown(limit, price)}", over))
        if budget.servable:
            why += _not_servable(results, name, budget.servable)
    unfit = {name: text for name in reasons if (text := unfit_runs(results, name))}
    if any(not why and name not in unfit for name, why in reasons.items()):
        for name, text in unfit.items():
            reasons[name].append(Refusal("ended", text))
    return {name: why for name, why in reasons.items() if why}


def _not_servable(results: Results, name: str, server: str) -> list[Refusal]:
    if (server, name) not in results.refusals:
        return [Refusal("servable", f"it has no saved adapter to check against {SERVERS[server]}")]
    return [Refusal("servable", f"{SERVERS[server]}: {text}") for text in results.refusals[server, name]]


def unfit_runs(results: Results, name: str) -> str:
    """Return `1 of 3 runs diverged`, or the check that a run of another trainer failed, or nothing."""
    ended = outcomes(results).get(name, Counter())
    words = zip(CENSORED, ("diverged", "ran out of memory"), strict=True)
    texts = [f"{ended[how]} of {ended.total()} runs {word}" for how, word in words if ended[how]]
    return ", ".join(texts) or failed_checks(results).get(name, "")


def _profiled_elsewhere(results: Results) -> dict[str, str]:
    """Return configuration -> the device of its profile, where that is not the one whose profiles are compared."""
    kept = set(cells(profiles(results)[0], "configuration"))
    rows = rows_of(results.profiles, "configuration", "device")
    return {str(name): str(device) for name, device in rows if name not in kept}
