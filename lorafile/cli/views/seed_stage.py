"""What `--resolve` shows: what is open, what would decide it, and the stage that is planned."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from lorafile.analysis.common.format import level
from lorafile.analysis.compare.outcomes import margin_text
from lorafile.analysis.compare.verdict_text import round_up
from lorafile.analysis.seed_planning import OpenComparison, Resolution
from lorafile.study.seed_stage import block
from lorafile.units import listing, plural

_MOST = 12  # comparisons that are shown one by one


def show_resolution(found: Resolution, out: Console) -> None:
    """Say what is not decided and what would decide it; the stage as the spec will have it."""
    for sentence in sentences(found):
        out.print(escape(sentence))
    if found.seeds:
        out.print(f"\n{escape(block(found))}")


def sentences(found: Resolution) -> list[str]:
    """Return why there is nothing to plan; or each open comparison with what decides it, and the stage."""
    if found.why:
        return [f"No stage is planned: {found.why}"]
    told = [_sentence(one, found) for one in found.undecided[:_MOST]]
    if len(found.undecided) > _MOST:
        told.append(f"… and {len(found.undecided) - _MOST} more comparisons that are not decided.")
    return [*told, _stage(found)]


def _sentence(one: OpenComparison, found: Resolution) -> str:
    start = f"{one.one} and {one.other} are not decided"
    if one.margin is None:
        return f"{start}, and without a margin nothing says what would decide them."
    power = f"margin {margin_text(found.metric, one.margin)}, 80 % power, stage {found.stage} at {level(found.alpha)}"
    grown = f"{round_up(one.examples)} {found.split} examples" if one.examples else ""
    if one.seeds and one.planned:
        return f"{start}: {plural(one.seeds, 'more seed')} would ({power})."
    if one.seeds:
        instead = f"; so would about {grown} (data.split.{found.split})" if grown else ""
        seeds = plural(one.seeds, "more seed")
        return f"{start}: {seeds} would, more than --max-seeds {found.most}, and are not planned{instead} ({power})."
    if grown:
        return (
            f"{start}, and no number of seeds would: the {one.have} examples alone carry too much. About {grown} would "
            f"(data.split.{found.split}, which is yours to change; {power})."
        )
    return f"{start}, and neither more seeds nor more examples alone would ({power})."


def _stage(found: Resolution) -> str:
    if not found.seeds:
        return f"No stage is planned: {plural(found.most, 'more seed')} would decide none of them."
    rest = len(found.undecided) - sum(one.planned for one in found.undecided)
    left = f" {plural(rest, 'comparison')} may stay open." if rest else ""
    who = f"{plural(len(found.seeds), 'more seed')} for {listing(found.configurations)}"
    return (
        f"Stage {found.stage}: {who}. What is open is tested again with all seeds so far at {level(found.alpha)}, "
        f"which leaves {level(found.left)} for stages after it.{left}"
    )


def resolution_json(found: Resolution) -> dict[str, Any]:
    """Return the stage as documented JSON."""
    told = {key: value for key, value in asdict(found).items() if key != "why"}
    return told | {"sentences": sentences(found), "toml": block(found) if found.seeds else ""}
