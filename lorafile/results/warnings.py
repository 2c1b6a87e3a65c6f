"""What a reader has to know before the first figure."""

from typing import Any

from lorafile.apply.tracking.destinations import missing_libraries
from lorafile.graph.notices import unused_tables
from lorafile.plan.plan import Action, Plan
from lorafile.results.datacard import leak_sentences, passage_sentences
from lorafile.results.environments import Environments
from lorafile.results.results import grouped, listed
from lorafile.results.runs import under_way
from lorafile.results.study_facts import data_of
from lorafile.results.timings import disturbances
from lorafile.specs.tables.evaluate import OF_ANSWERS
from lorafile.units import listing, plural

Rows = list[dict[str, Any]]
_NAMED = 3


def warnings(plan: Plan, runs: Rows, card: Rows, places: Environments, profiles: Rows) -> list[str]:
    """Return sentences: of the plan, the data, the runs, and where they were computed.

    What is not installed here to send runs elsewhere, and tables that nothing uses, concern the one who writes the
    spec, and not a reader of results.
    """
    of_spec = {*missing_libraries(plan.graph.spec), *unused_tables(plan.graph)}
    return [
        *(line for line in plan.warnings if line not in of_spec),
        *(line for data in card for line in (*leak_sentences(data), *passage_sentences(data))),
        *dict.fromkeys(text for done in plan.results.values() if (text := done.figures.get("unpacked"))),
        *_of_runs(plan, runs),
        *_of_answers(plan),
        *_of_profiles(plan, profiles),
        *_of_data(plan),
        *places.mixed(plan.graph),
        *under_way(plan.graph.spec, runs),
    ]


def _failed_metrics(plan: Plan) -> list[str]:
    """Say which metric files gave no figure, and why; the runs themselves stand."""
    reasons = grouped(
        (change.address.rpartition("/")[2], change.reason.removeprefix("failed: "))
        for change in plan.changes
        if change.action is Action.RETRY and "metric_file" in plan.graph.nodes[change.key].settings
    )
    return [f"The metric {name} has no value in {len(why)} places: {why[0]}" for name, why in reasons.items()]


def _of_runs(plan: Plan, runs: list[dict[str, Any]]) -> list[str]:
    """Say what became of the runs that are not simply done."""
    lines = []
    missing = [run for run in runs if run["outcome"] in ("missing", "failed", "interrupted", "running")]
    if missing:
        lines.append(f"This study is partial: {len(missing)} of {len(runs)} runs have no result yet.")
    for outcome, word in (("diverged", "diverged"), ("out-of-memory", "ran out of memory")):
        number = sum(run["outcome"] == outcome for run in runs)
        if number:
            lines.append(f"{number} of {len(runs)} runs {word}; they are marked as such and left out of all averages.")
    if imported := _with(runs, "imported"):
        word = "run was" if len(imported) == 1 else "runs were"
        lines.append(f"{len(imported)} {word} imported, not trained under this protocol: {listed(imported)}.")
    lines += [*_of_programs(runs), *_of_selection(runs)]
    if cut := _with(runs, "micro_batch_split"):
        lines.append(
            f"{plural(len(cut), 'run')} used smaller micro-batches after running out of memory; the effective batch, "
            f"order and loss are as specified: {listed(cut)}."
        )
    lines += _failed_metrics(plan)
    drifted = sum(change.action is Action.DRIFT for change in plan.changes)
    if drifted:
        lines.append(f"{drifted} results were computed in an environment other than the current one.")
    return lines


def _of_programs(runs: list[dict[str, Any]]) -> list[str]:
    """Say which runs of programs failed checks, and which programs could have read held-out rows."""
    lines = []
    if failed := _with(runs, "failed_checks"):
        first = next(run["failed_checks"] for run in runs if run.get("failed_checks"))
        word = "run" if len(failed) == 1 else "runs"
        lines.append(f"{len(failed)} {word} of trainers failed checks: {listed(failed)}. The first: {first}")
    if seen := sorted({run["trainer"] for run in runs if run.get("reads") == "not restricted"}):
        lines.append(
            f"Nothing prevented these trainers from reading held-out rows: {listed(seen)}. Where the kernel has "
            "Landlock, and neither the model's directory nor the state is in a system directory, Lorafile prevents it."
        )
    return lines


def _of_selection(runs: list[dict[str, Any]]) -> list[str]:
    """Say which runs chose their step on validation."""
    selected = _with(runs, "selected_on")
    if not selected:
        return []
    return [
        f"{plural(len(selected), 'run')} chose the training step on validation, so their results on validation are "
        f"optimistic; tests use test, where there is one: {listed(selected)}."
    ]


def _with(runs: list[dict[str, Any]], flag: str) -> list[str]:
    return [f"{run['configuration']}/seed={run['seed']}" for run in runs if run.get(flag)]


def _of_answers(plan: Plan) -> list[str]:
    """Say how many answers the most new tokens ended, and nothing else did; results of before 0.18 do not tell."""
    counted: dict[tuple[int, str], list[int]] = {}
    for key, done in plan.results.items():
        node = plan.graph.nodes.get(key)
        if node is not None and node.split != "prompts" and done.figures.get("cut"):
            of = counted.setdefault((node.settings["task"]["max_new_tokens"], node.split), [0, 0, 0])
            of[:] = (of[0] + done.figures["cut"], of[1] + done.figures["examples"], of[2] + 1)
    return [
        f"{cut} of {plural(total, 'answer')} on {split}, from {plural(runs, 'run')}, were cut off at "
        f"evaluate.max_new_tokens = {limit} and are scored as they are."
        for (limit, split), (cut, total, runs) in counted.items()
    ]


def _of_profiles(plan: Plan, profiles: Rows) -> list[str]:
    """Say which timings are those of a machine that did other work meanwhile, and how to take them again."""
    disturbed = disturbances(profiles)
    keys = {str(row["key"]): disturbed.get(row["configuration"]) for row in profiles}
    busy = {plan.graph.nodes[key].address: why for key, why in keys.items() if why is not None}
    if not busy:
        return []
    again = " ".join(f"--replace '{address}'" for address in list(busy)[:_NAMED])
    more = f" (and {len(busy) - _NAMED} more)" if len(busy) > _NAMED else ""
    if len(busy) == len(keys) > _NAMED:
        again, more = "--replace '*:profile'", ""
    count = sum(why.kind != "alone" for why in busy.values())
    left = len(busy) - count
    rest = f". Nothing confirms those in the other {left if left > 1 else 'one'}" if left else ""
    signs = []
    if spread := max((why.size for why in busy.values() if why.kind == "spread"), default=0.0):
        signs.append(f"repeated timings of one answer had quartiles up to {_percent(spread)} of their median apart")
    if off := max((abs(why.size) for why in busy.values() if why.kind == "yardstick"), default=0.0):
        signs.append(f"the time of the bare base differed by up to {_percent(off)} from the other profiles")
    return [
        f"The times in {count} of {plural(len(keys), 'profile')} are unreliable: the machine was busy with other work, "
        f"and {listing(signs)}{rest}. Measure again on an idle machine: "
        f"lora apply {plan.graph.spec.file} {again}{more}"
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u202f%"


def _of_clusters(plan: Plan) -> list[str]:
    """Say where examples that belong together are counted as one."""
    keys = {key: split for splits in plan.graph.clusters.values() for split, key in splits.items()}
    counts: dict[str, dict[str, None]] = {}
    for key, split in keys.items():
        if key in plan.results and (figures := plan.results[key].figures):
            column = plan.graph.nodes[key].settings["data"]["clusters"]
            text = f"{figures['examples']} {split} examples are in {figures['clusters']} clusters"
            counts.setdefault(column, {})[text] = None
    return [
        f'Grouped by "{column}", {listing(list(texts))}. Significance is tested on clusters, because examples in the '
        "same cluster are not independent (data.cluster)."
        for column, texts in counts.items()
    ]


def _prepared(plan: Plan) -> dict[str, dict[str, dict[str, Any]]]:
    """Return split -> configuration -> what its examples came to, as far as they are prepared."""
    splits: dict[str, dict[str, dict[str, Any]]] = {}
    for configuration in plan.graph.spec.configurations:
        for split, key in plan.graph.splits[configuration.name].items():
            if key in plan.results:
                splits.setdefault(split, {})[configuration.name] = plan.results[key].figures
    return splits


def _counted(prepared: dict[str, dict[str, Any]], name: str) -> str:
    """Return a count of a split: `7`, or `0 to 7 (7 for rank/r=8)` where configurations differ in it."""
    counts = {configuration: int(figures.get(name) or 0) for configuration, figures in prepared.items()}
    least, most = min(counts.values(), default=0), max(counts.values(), default=0)
    if least == most:
        return str(most) if most else ""
    return f"{least} to {most} ({most} for {listed([name for name, count in counts.items() if count == most], 3)})"


def _of_data(plan: Plan) -> list[str]:
    """Say which examples did not go in whole."""
    lines = []
    for split, prepared in _prepared(plan).items():
        if cut := _counted(prepared, "too_long"):
            examples, exceed, were = ("example", "exceeds", "was") if cut == "1" else ("examples", "exceed", "were")
            lines.append(f"{cut} {examples} in the {split} split {exceed} max_length and {were} dropped or cut.")
        if lost := _counted(prepared, "answers_lost"):
            lines.append(f"{lost} of them lost their whole answer and were dropped.")
        if empty := _counted(prepared, "empty_answers"):
            have = "example has" if empty == "1" else "examples have"
            lines.append(f"{split} split: {empty} {have} an empty answer, which trains the model to say nothing.")
        if unknown := _counted(prepared, "unknown_tokens"):
            tokens, are = ("token", "is") if unknown == "1" else ("tokens", "are")
            lines.append(f"{unknown} {tokens} in the {split} split {are} unknown to the tokenizer.")
    lines += _of_clusters(plan)
    evaluate = plan.graph.spec.tables.evaluate
    ends = {figures["reasoning"] for figures in data_of(plan)["splits"].values() if figures.get("reasoning")}
    if ends and set(evaluate.metrics) & set(OF_ANSWERS):
        whole = (
            "whole, with the reasoning before them"
            if not evaluate.strip_reasoning
            else f"by the text after {min(ends)}"
        )
        lines.append(f"Answers are compared {whole} (evaluate.strip_reasoning).")
    return lines
