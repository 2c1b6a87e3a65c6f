"""The checks of what a report is to answer: claims, published figures, and analyses of one's own."""

import ast
from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

from lorafile.specs.checks.analysis import check_margin
from lorafile.specs.configurations import Configuration, flatten
from lorafile.specs.error_messages import Problems, show, suggestion
from lorafile.specs.positions import Path
from lorafile.specs.tables.analysis import AnalysisTable, ClaimTable, Limits, PublishedTable
from lorafile.specs.tables.evaluate import metric_label
from lorafile.specs.tables.settings import SpecTables
from lorafile.specs.values import Dimension, in_base_units

_BYTES = ("train_memory", "train_memory_reserved", "generate_memory", "adapter_size")
_COMPARISONS = ("is", "at_most_below")  # what needs another configuration


def dimension(cost: str) -> Dimension | None:
    """Return what a measure of cost is measured in; None for a count."""
    return "bytes" if cost in _BYTES else None if cost == "trainable_parameters" else "seconds"


def check_claims(tables: SpecTables, configurations: Sequence[Configuration], file: File, problems: Problems) -> None:
    """Check claims, published figures and files of analyses, now that the configurations have their names.

    :param file: where the spec stands; files that it names are relative to its folder
    """
    names = [name for configuration in configurations for name in (configuration.name, *configuration.aliases)]
    metrics = [metric_label(metric) for metric in tables.evaluate.metrics]
    for number, analysis in enumerate(tables.analysis):
        _check_custom_analysis(analysis, ("analysis", number), file.parent, problems)
        _check_tuned(analysis, ("analysis", number), configurations, problems)
        if isinstance(analysis.baseline, str):
            _check_name(analysis.baseline, ("analysis", number, "baseline"), names, problems)
        elif analysis.baseline:
            _check_baseline(analysis.baseline, ("analysis", number, "baseline"), configurations, problems)
    for number, claim in enumerate(tables.claim):
        place: Path = ("claim", number)
        _check_claim(claim, place, problems)
        _check_metric(claim.metric, place, metrics, problems)
        _check_names(claim, place, names, problems)
        _check_analysis(claim, place, tables.analysis, problems)
        _check_margin(claim, place, tables, problems)
        if claim.text in [earlier.text for earlier in tables.claim[:number]]:
            problems.add(
                (*place, "text"),
                "appears in two claims; each claim needs its own sentence, because it is recorded under it",
            )
    for number, published in enumerate(tables.reference):
        place = ("reference", number)
        _check_metric(published.metric, place, metrics, problems)
        _check_published(published, place, problems)


def _check_claim(claim: ClaimTable, place: Path, problems: Problems) -> None:
    """Check that a claim says what has to hold, and nothing that contradicts itself."""
    held = [name for name in _COMPARISONS if getattr(claim, "is_" if name == "is" else name) is not None]
    bounds = [name for name in ("at_least", "at_most", *Limits.model_fields) if getattr(claim, name) is not None]
    if not held and not bounds:
        ways = 'is = "better" with other, at_most_below = "3pt" with other, at_least, at_most, or a limit of cost'
        problems.add(place, f"has no condition to check; write {ways}")
    if len(held) == 2:
        problems.add((*place, "at_most_below"), 'is set together with is; it means is = "non-inferior", so keep one')
    if held and claim.other is None:
        problems.add((*place, held[0]), "needs other: the configuration that `one` is compared with")
    if claim.other is not None and not held:
        problems.add((*place, "other"), 'needs a comparison; write is = "equivalent", or at_most_below = "3pt"')
    if claim.margin is not None and claim.is_ not in ("equivalent", "non-inferior"):
        problems.add((*place, "margin"), 'applies only to is = "equivalent" and is = "non-inferior"')
    if claim.at_least is not None and claim.at_most is not None and claim.at_least > claim.at_most:
        problems.add((*place, "at_least"), f"is more than at_most = {claim.at_most:g}, so the claim could never hold")


def _check_metric(metric: str | None, place: Path, metrics: list[str], problems: Problems) -> None:
    if metric is not None and metric_label(metric) not in metrics:
        hint = suggestion(metric_label(metric), metrics) or f": {', '.join(metrics)}"
        problems.add((*place, "metric"), f'"{metric}" is not among evaluate.metrics{hint}')


def _check_name(name: str, place: Path, names: list[str], problems: Problems) -> None:
    if name not in names:
        hint = (
            suggestion(name, names)
            or f"; its configurations: {', '.join(names[:8])}{' and others' if len(names) > 8 else ''}"
        )
        problems.add(place, f"{show(name)} is not a configuration of this study{hint}")


def _check_baseline(
    baseline: dict[str, Any], place: Path, configurations: Sequence[Configuration], problems: Problems
) -> None:
    """Refuse a number that no configuration has: it would choose no baseline, and nothing would be compared."""
    everyone = [each for c in configurations for each in (c, *(c.tuned.candidates if c.tuned else ()))]
    for setting, value in flatten(baseline).items():
        section, _, name = setting.rpartition(".")
        values = [c.varied[setting] for c in everyone if setting in c.varied]
        values += [getattr(c.train, name, None) for c in everyone if section == "train"]
        values += [(c.adapter or {}).get(name) for c in everyone if c.method == section]
        if isinstance(value, (int, float)) and values and value not in values:
            listed = ", ".join(dict.fromkeys(show(each) for each in values if each is not None))
            problems.add(place, f"no configuration has {setting} = {show(value)}; there are {listed}")


def _check_names(claim: ClaimTable, place: Path, names: list[str], problems: Problems) -> None:
    for setting in ("one", "other"):
        name = getattr(claim, setting)
        if name is not None:
            _check_name(name, (*place, setting), names, problems)
    if claim.other is not None and claim.one == claim.other:
        problems.add((*place, "other"), "is the same configuration as `one`")


def _check_analysis(claim: ClaimTable, place: Path, analyses: list[AnalysisTable], problems: Problems) -> None:
    if claim.analysis is None:
        return
    named = [analysis for analysis in analyses if analysis.name == claim.analysis]
    path = (*place, "analysis")
    if not named:
        names = [analysis.name for analysis in analyses if analysis.name]
        otherwise = f"; existing names: {', '.join(names)}" if names else "; no analysis has a name"
        hint = suggestion(claim.analysis, names) or otherwise
        problems.add(path, f"no [[analysis]] is named {show(claim.analysis)}{hint}")
    elif len(named) > 1:
        problems.add(path, f"{len(named)} analyses are named {show(claim.analysis)}; give each its own name")
    elif named[0].kind != "compare":
        problems.add(
            path, f'{show(claim.analysis)} is not a comparison; a claim needs an analysis with kind = "compare"'
        )
    if claim.is_ is None:
        problems.add(path, 'names a comparison; also set the required verdict, such as is = "equivalent", and other')
    for setting in ("metric", "margin"):
        if getattr(claim, setting) is not None:
            problems.add((*place, setting), "is set by the analysis; omit it, or omit `analysis`")


def _check_margin(claim: ClaimTable, place: Path, tables: SpecTables, problems: Problems) -> None:
    metric = claim.metric or tables.evaluate.primary or tables.evaluate.metrics[0]
    for setting in ("margin", "at_most_below"):
        check_margin(getattr(claim, setting), metric, (*place, setting), problems)
    compared = [analysis for analysis in tables.analysis if analysis.kind in ("compare", None)]
    margins = [claim.margin, tables.verdict.margin, *(analysis.margin for analysis in compared)]
    if claim.is_ in ("equivalent", "non-inferior") and all(margin is None for margin in margins):
        problems.add((*place, "is"), f'"{claim.is_}" needs a margin; write margin = "1pt" here, or in [verdict]')


def _check_published(published: PublishedTable, place: Path, problems: Problems) -> None:
    for cost, amount in published.costs.items():
        measured, path = dimension(cost), (*place, "costs", cost)
        if isinstance(amount, str) and in_base_units(amount)[0] != measured:
            example = {"bytes": ' such as "8GB"', "seconds": ' such as "30ms"'}.get(str(measured), "")
            problems.add(path, f"should be {measured or 'a number without a unit'}{example}, not {show(amount)}")
        elif not isinstance(amount, str) and measured is not None:
            problems.add(path, f'needs a unit, such as "8GB" or "30ms", not {show(amount)}')


def _check_tuned(
    analysis: AnalysisTable, place: Path, configurations: Sequence[Configuration], problems: Problems
) -> None:
    if analysis.kind == "tune" and configurations and not any(c.tuned for c in configurations):
        example = "learning_rate = { tune = [1e-4, 3e-4, 1e-3] }"
        problems.add((*place, "kind"), f'"tune" has nothing to show, because no setting is tuned, as {example} would')


def _check_custom_analysis(analysis: AnalysisTable, place: Path, folder: File, problems: Problems) -> None:
    """Check that the file of one's own analysis is there, is Python, and defines `analyse`; it is not run."""
    if analysis.kind != "own":
        return
    if analysis.file is None:
        problems.add((*place, "kind"), '"own" needs file = "analyses/own.py", a Python file with analyse(results)')
        return
    at, path = (*place, "file"), folder / File(analysis.file).expanduser()
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as error:
        problems.add(at, f"{show(analysis.file)} cannot be read: {error.strerror}; paths are relative to the spec")
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        problems.add(at, f"{show(analysis.file)}{line} is not Python: {getattr(error, 'msg', error)}")
    else:
        imported = [alias for part in tree.body if isinstance(part, ast.ImportFrom) for alias in part.names]
        defined = {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}
        if "analyse" not in defined | {alias.asname or alias.name for alias in imported}:
            problems.add(at, f"{show(analysis.file)} does not define the function analyse(results)")
