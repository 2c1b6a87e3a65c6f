"""What is printed of an apply: between its stages, at its end, and of what trackers got."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.console import MOST
from lorafile.cli.views.plan import counted
from lorafile.cli.views.show import metric_title, metric_value
from lorafile.plan.plan import Plan
from lorafile.units import and_more, duration, listing, plural

if TYPE_CHECKING:
    from lorafile.apply.progress import Applied, Tracked
    from lorafile.state import Attempt
    from lorafile.study.study import BestFigure


def stage_lines(plan: Plan) -> list[str]:
    """Return what an apply says between its stages."""
    lines = [f"Chosen: {status.choice}." for status in plan.tuning if status.chosen]
    reasons = dict.fromkeys(change.reason for change in plan.work if "was added, since" in change.reason)
    lines += [f"Not chosen yet: {reason}." for reason in reasons]
    equal = [node.address for node in plan.graph.nodes.values() if node.accepted and node.accepted.is_equal]
    lines += [f"Identical to finished data: {listing(equal)}; results based on them are reused."] if equal else []
    return [*lines, f"{plural(len(plan.work), 'node')} to go."]


def show_collected(attempts: list["Attempt"], out: Console) -> None:
    """Say what a cluster's workers finished while no apply listened."""
    if attempts:
        kinds = counted(Counter(attempt.kind for attempt in attempts))
        out.print(f"Collected: {kinds}, finished by the cluster while no apply was running.")


def show_applied(applied: "Applied", out: Console) -> None:
    """Say what an apply has done, and what went wrong."""
    done = counted(Counter(attempt.kind for attempt in applied.attempts if attempt.finished)) or "nothing"
    out.print(f"[bold]Done:[/] {done} in {duration(applied.seconds)}.")
    for outcome, colour in (("diverged", "yellow"), ("out-of-memory", "yellow"), ("failed", "red")):
        attempts = applied.with_outcome(outcome)
        for attempt in attempts[:MOST]:
            out.print(f"[{colour}]{outcome}:[/] {escape(attempt.address)}: {escape(attempt.message)}")
        if more := and_more(len(attempts), MOST, outcome):
            out.print(more)
    if applied.interrupted:
        out.print("[yellow]Interrupted.[/] Finished results are kept; the next apply resumes from there.")


@dataclass(frozen=True)
class LeftOver:
    """What of a plan is not done."""

    nodes: int
    words: str


def left_over(plan: Plan, applied: "Applied") -> LeftOver:
    """Return how much of a plan an apply has left: nodes by kind, and the time that was estimated for them."""
    ended = {attempt.key for attempt in applied.attempts if attempt.outcome != "interrupted"}
    left = [change for change in plan.work if change.key not in ended]
    seconds = sum((change.forecast or {}).get("seconds", 0.0) for change in left)
    words = f"{len(left)} of {plural(len(plan.work), 'node')} ({counted(left)}; about {duration(seconds)})"
    return LeftOver(len(left), words)


def best_line(best: "BestFigure") -> str:
    """Return `Best so far: 98.5 % exact match on test, rank/r=32 (3 seeds)`."""
    value = metric_value(f"{best.split}.{best.metric}", best.mean)
    about = plural(best.seeds, "seed") + (f"; the best on {best.chosen_on}" if best.chosen_on else "")
    return f"Best so far: {metric_title(f'{best.split}.{best.metric}')} {value}, {best.configuration} ({about})"


def best_json(best: "BestFigure | None") -> dict[str, Any] | None:
    """Return the best figure as documented JSON."""
    return None if best is None else asdict(best)


def show_sending(runs: int, out: Console) -> None:
    """Say that something is sent although nothing is to be done."""
    out.print(f"Sending {plural(runs, 'run')} that a tracker does not have; Ctrl-C leaves the rest to the next apply.")


def show_tracking(tracked: "Sequence[Tracked]", state: Path, out: Console) -> None:
    """Say what each tracker got, and why it did not get the rest."""
    for got in tracked:
        if got.sent:
            out.print(escape(f"Sent to {got.tracker} ({got.where}): {plural(got.sent, 'run')}."))
        if got.left:
            why = f"tracking: {got.tracker} did not receive {plural(got.left, 'run')}: {got.problem.rstrip('.')}"
            log = state / "tracking" / f"{got.tracker}.log"
            remedy = f"The results are in the state, and the next apply sends them. Log of {got.tracker}: {log}"
            out.print(f"[yellow]Warning:[/] {escape(f'{why}. {remedy}')}")
