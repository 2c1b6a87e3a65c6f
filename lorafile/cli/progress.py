"""What an apply shows while it runs: bars on a terminal, plain lines elsewhere, or events as JSON."""

import json
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape

from lorafile.cli.status_line import hide_status_line
from lorafile.cli.terminal import echo
from lorafile.cli.views.apply import stage_lines
from lorafile.cli.views.console import FORMAT_VERSION, finite
from lorafile.cli.views.table import shorten
from lorafile.graph.graph import GraphNode
from lorafile.plan.cost import cost_json
from lorafile.plan.plan import Plan
from lorafile.state import Attempt
from lorafile.units import duration, utc_now

if TYPE_CHECKING:
    from rich.progress import TaskID


class Lines:
    """Progress off a terminal: one plain line for each node that ends."""

    def __init__(self, plan: Plan, out: Console) -> None:
        self.out, self.total = out, len(plan.work)
        self.ended_nodes: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def on_node_start(self, node: GraphNode) -> None:
        """Print nothing yet."""

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Print a node's notes; a log has no use for a bar."""
        if "note" in progress:
            self.out.print(escape(f"{node.address}: {progress['note']}"))

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Print what ended, and how."""
        self.ended_nodes.add(node.key)  # what is taken up again ends twice
        self.out.print(escape(f"[{len(self.ended_nodes)}/{self.total}] {_outcome(node, attempt)}"))

    def on_result(self, content: dict[str, Any]) -> None:
        """Print nothing: the end of an apply has a view of its own."""

    def on_stop(self, times: int) -> None:
        """Print what happens after Ctrl-C."""
        self.out.print(_STOPS.get(times, "Stopping immediately."))

    def on_next_stage(self, plan: Plan) -> None:
        """Print what was chosen, and how much follows; what was to come may be reused by now."""
        self.total = len(self.ended_nodes) + len(plan.work)
        for line in stage_lines(plan):
            self.out.print(escape(line))


class Events(Lines):
    """Progress as JSON: one event a line, as docs/formats.md has them."""

    def __init__(self, plan: Plan, out: Console) -> None:
        super().__init__(plan, out)
        about = {"format_version": FORMAT_VERSION, "study": plan.study, "nodes": self.total}
        self._event("plan", **about, summary=plan.summary(), bill=cost_json(plan), warnings=list(plan.warnings))

    def _event(self, name: str, **content: Any) -> None:
        echo(json.dumps({"event": name, "time": utc_now(), **finite(content)}, ensure_ascii=False, allow_nan=False))

    def on_node_start(self, node: GraphNode) -> None:
        """Print that it has begun."""
        self._event("start", address=node.address, key=node.key, kind=node.kind)

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Print how far it has come, or its note."""
        self._event("note" if "note" in progress else "progress", address=node.address, key=node.key, **progress)

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Print what ended, and how."""
        self.ended_nodes.add(node.key)
        about = {"address": node.address, "key": node.key, "kind": node.kind, "outcome": attempt.outcome}
        more = {"message": attempt.message, "seconds": attempt.seconds, "figures": attempt.figures}
        self._event("end", **about, **more, ended=len(self.ended_nodes), nodes=self.total)

    def on_stop(self, times: int) -> None:
        """Print that the user wants an end."""
        self._event("stop", times=times)

    def on_next_stage(self, plan: Plan) -> None:
        """Print what was chosen, and how much follows."""
        self.total += len(plan.work)
        self._event("stage", nodes=self.total, chosen=[status.choice for status in plan.tuning if status.chosen])

    def on_result(self, content: dict[str, Any]) -> None:
        """Print how the apply ended."""
        self._event("result", **content)


_NAME, _OTHERS = 24, 50  # characters of a name, and of all else but the bar, on a terminal of 80 columns
_FRAMES = 4  # a second in which what moves is drawn


class Bars(Lines):
    """Progress on a terminal: a bar for the plan, and one for each node in work with its loss and tokens a second."""

    def __init__(self, plan: Plan, out: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        super().__init__(plan, out)
        self.seconds = _forecast(plan)
        room = out.width - _NAME - _OTHERS  # of the bar, and of longer names where there is more
        self.name_width = _NAME + max(0, room - 40)
        bar = BarColumn(bar_width=max(4, min(40, room)))
        columns = (SpinnerColumn(), TextColumn("{task.description}"), bar, TimeElapsedColumn())
        self.bars = Progress(
            *columns, TextColumn("{task.fields[status]}"), console=out, transient=True, refresh_per_second=_FRAMES
        )
        self.all = self.bars.add_task(f"{self.total} nodes", total=sum(self.seconds.values()), status="")
        self.nodes: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        hide_status_line()
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def on_node_start(self, node: GraphNode) -> None:
        """Show a bar."""
        name = escape(shorten(node.address, self.name_width))
        self.nodes[node.key] = self.bars.add_task(name, total=None, status="")

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Move the bar, or print a node's notes."""
        if "note" in progress:
            super().on_node_progress(node, progress)
        elif node.key in self.nodes:
            done, steps = progress["step"], progress["steps"]
            self.bars.update(self.nodes[node.key], completed=done, total=steps, status=_status(progress))

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Take the bar away and move the plan's."""
        if node.key in self.nodes:
            self.bars.remove_task(self.nodes.pop(node.key))
        self.ended_nodes.add(node.key)
        self.bars.advance(self.all, self.seconds.get(node.key, 0.0))
        task = self.bars.tasks[0]
        share = min(1.0, task.completed / task.total) if task.total else 1.0
        left = f"about {duration((task.elapsed or 0) * (1 - share) / share)} left" if share > 0.02 else ""
        self.bars.update(self.all, status=f"{len(self.ended_nodes)}/{self.total} nodes  {left}")
        if attempt.kind == "train" or attempt.outcome != "done":
            self.out.print(escape(_outcome(node, attempt)))

    def on_next_stage(self, plan: Plan) -> None:
        """Print what was chosen, and make the plan's bar as long as what follows."""
        super().on_next_stage(plan)
        self.seconds |= (more := _forecast(plan))
        total = self.bars.tasks[0].completed + sum(more.values())
        self.bars.update(self.all, total=total, description=f"{self.total} nodes")


def watcher_for(plan: Plan, out: Console, as_json: bool = False) -> Lines:
    """Return what shows an apply: bars on a terminal, lines elsewhere, or events as JSON."""
    return (Events if as_json else Bars if out.is_terminal else Lines)(plan, out)


def _status(progress: dict[str, Any]) -> str:
    """Return `12/90  loss 1.234  5,678 tokens/s`, as far as a node says it."""
    text = f"{progress['step']}/{progress['steps']}"
    if "loss" in progress:
        text += f"  loss {progress['loss']:.3f}"
    if progress.get("tokens_per_second"):
        text += f"  {progress['tokens_per_second']:,.0f} tokens/s"
    return text


_STOPS = {
    1: "Finishing running work; press Ctrl-C again to stop it now.",
    2: "Stopping running work; finished results are kept.",
}


def _forecast(plan: Plan) -> dict[str, float]:
    """Return how many seconds each node of a plan is expected to take."""
    return {change.key: (change.forecast or {}).get("seconds", 0.1) for change in plan.work}


def _outcome(node: GraphNode, attempt: Attempt) -> str:
    """Return `rank/r=8/seed=1:train: done in 12 s, loss 1.234, 5,678 tokens/s`, and what checks of it found."""
    text = f"{node.address}: {attempt.outcome} in {duration(attempt.seconds)}"
    if attempt.outcome != "done":
        return f"{text}: {attempt.message}"
    loss, speed = (attempt.figures.get(name) for name in ("final_loss", "tokens_per_second"))
    text += "" if loss is None else f", loss {loss:.3f}"
    text += "" if speed is None else f", {speed:,.0f} tokens/s"
    return "\n".join([text, *(f"  Warning: {trace}" for trace in attempt.figures.get("failed_checks", []))])
