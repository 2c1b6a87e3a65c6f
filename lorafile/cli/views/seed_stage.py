"""What `--resolve` shows: what is open, what would decide it, and the stage that is planned."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from lorafile.analysis.common.format import level
from lorafile.analysis.compare.outcomes import margin_text
from lorafile.analysis.compare.verdict_text import round_up
from lorafile.analysis.seed_planning import OpenComparison, Resolution
from lorafile.cli.views.console import MOST
from lorafile.study.seed_stage import block
from lorafile.units import and_more, listing, plural


def show_resolution(stage: Resolution, out: Console) -> None:
    """Say what is inconclusive and what would decide it; the stage as the spec will have it."""
    for sentence in sentences(stage):
        out.print(escape(sentence))
    if stage.seeds:
        out.print(f"\n{escape(block(stage))}")


def sentences(stage: Resolution) -> list[str]:
    """Return why there is nothing to plan; or each open comparison with what decides it, and the stage."""
    if stage.why:
        return [f"No stage is planned: {stage.why}"]
    lines = [_sentence(comparison, stage) for comparison in stage.undecided[:MOST]]
    if more := and_more(len(stage.undecided), MOST, "comparisons that are inconclusive."):
        lines.append(more)
    return [*lines, _stage(stage)]


def _sentence(comparison: OpenComparison, stage: Resolution) -> str:
    start = f"{comparison.one} and {comparison.other} are inconclusive"
    if comparison.margin is None:
        return f"{start}; without a margin, the seeds needed to decide are unknown."
    margin = margin_text(stage.metric, comparison.margin)
    power = f"margin {margin}, 80 % power, stage {stage.stage} at {level(stage.alpha)}"
    grown = f"{round_up(comparison.examples)} {stage.split} examples" if comparison.examples else ""
    if comparison.seeds and comparison.planned:
        return f"{start}: {plural(comparison.seeds, 'more seed')} would decide ({power})."
    if comparison.seeds:
        instead = f"; so would about {grown} (data.split.{stage.split})" if grown else ""
        seeds = plural(comparison.seeds, "more seed")
        return f"{start}: {seeds} would, more than --max-seeds {stage.most}; none is planned{instead} ({power})."
    if grown:
        cause = f"the {comparison.have} examples alone vary too much"
        instead = f"About {grown} would (set data.split.{stage.split} yourself; {power})"
        return f"{start}, and no number of seeds would: {cause}. {instead}."
    return f"{start}, and neither more seeds nor more examples alone would ({power})."


def _stage(stage: Resolution) -> str:
    if not stage.seeds:
        return f"No stage is planned: {plural(stage.most, 'more seed')} would decide none of them."
    rest = sum(not comparison.planned for comparison in stage.undecided)
    left = f" {plural(rest, 'comparison')} may remain inconclusive." if rest else ""
    who = f"{plural(len(stage.seeds), 'more seed')} for {listing(stage.configurations)}"
    return (
        f"Stage {stage.stage}: {who}. Inconclusive comparisons are tested again with all seeds so far at "
        f"{level(stage.alpha)}, which leaves {level(stage.left)} for later stages.{left}"
    )


def resolution_json(stage: Resolution) -> dict[str, Any]:
    """Return the stage as documented JSON."""
    content = {key: value for key, value in asdict(stage).items() if key != "why"}
    return content | {"sentences": sentences(stage), "toml": block(stage) if stage.seeds else ""}
