"""A row for each configuration: its settings, and how its runs ended."""

from typing import Any

from lorafile.specs import Configuration
from lorafile.specs.tables.quantizations import quantization_name


def configuration_row(
    c: Configuration, everyone: tuple[Configuration, ...], runs: list[dict[str, Any]], adapter: dict[str, Any]
) -> dict[str, Any]:
    """Return what varies in a configuration, and how many of its runs have figures.

    :param adapter: its method's settings as they are resolved; of a matched placement the rank is the solved one
    """
    mine = [run for run in runs if run["configuration"] == c.name]
    outcomes = [run["outcome"] for run in mine]
    row: dict[str, Any] = {
        "configuration": c.name,
        "sweep": c.sweep,
        "aliases": list(c.aliases),
        "method": c.method,
        "trained": c.method != "none",
    }
    solved = any(other.matched for other in everyone)
    row |= {"rank": adapter.get("r") if solved else None, "alpha": adapter.get("lora_alpha") if solved else None}
    row |= {"replicates": len(mine), "done": outcomes.count("done")}
    row["outcomes"] = ", ".join(f"{outcome} {outcomes.count(outcome)}" for outcome in dict.fromkeys(outcomes))
    if c.method == "none":
        row["shots"] = c.shots
    tuned = [[axis.setting for axis in other.tuned.axes] if other.tuned else [] for other in everyone]
    row["tuned"] = [axis.setting for axis in c.tuned.axes] if c.tuned else []
    varied = [name for other in everyone for name in other.varied] + [name for names in tuned for name in names]
    return row | {
        setting: None if c.open and setting in row["tuned"] else setting_value(c, setting, adapter)
        for setting in dict.fromkeys(varied)
    }


def setting_value(c: Configuration, setting: str, adapter: dict[str, Any]) -> Any:
    """Return a setting as the spec wrote it for this configuration, or its default; None where it does not apply."""
    if c.matched and setting in ("lora.r", "lora.lora_alpha"):
        return adapter[setting.removeprefix("lora.")]  # solved for the model
    if setting in c.varied:
        return c.varied[setting]
    section, _, name = setting.partition(".")
    if section == "method":
        return c.method
    if section == "quantization":
        return quantization_name(c.quantization)
    table: Any = {
        c.method: c.adapter,
        "train": c.train and c.train.model_dump(),
        "model": c.model.model_dump(),
        "data": c.data.model_dump(),
        "none": {"shots": c.shots} if c.method == "none" else None,
    }.get(section)
    for part in name.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    return table
