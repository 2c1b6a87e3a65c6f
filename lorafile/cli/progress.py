"""What an apply shows while it runs: bars on a terminal, plain lines elsewhere."""

from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.apply import stage_lines
from lorafile.graph.graph import GraphNode
from lorafile.plan.plan import Plan
from lorafile.state import Attempt
from lorafile.units import duration

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

    def on_stop(self, times: int) -> None:
        """Print what happens after Ctrl-C."""
        self.out.print(_STOPS.get(times, "Breaking off."))

    def on_next_stage(self, plan: Plan) -> None:
        """Print what was chosen, and how much follows; what was to come may be reused by now."""
        self.total = len(self.ended_nodes) + len(plan.work)
        for line in stage_lines(plan):
            self.out.print(escape(line))


class Bars(Lines):
    """Progress on a terminal: a bar for the plan, and one for each node in work with its loss and tokens a second."""

    def __init__(self, plan: Plan, out: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__(plan, out)
        self.seconds = _forecast(plan)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
        self.bars = Progress(*columns, console=out, transient=True)
        self.all = self.bars.add_task(f"{self.total} nodes", total=sum(self.seconds.values()), status="")
        self.nodes: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def on_node_start(self, node: GraphNode) -> None:
        """Show a bar."""
        self.nodes[node.key] = self.bars.add_task(escape(node.address), total=None, status="")

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Move the bar, or print a node's notes."""
        if "note" in progress:
            super().on_node_progress(node, progress)
            return
        status = f"{progress['step']}/{progress['steps']}"
        if "loss" in progress:
            status += f"  loss {progress['loss']:.3f}  {progress['tokens_per_second']:,.0f} tokens/s"
        if node.key in self.nodes:
            self.bars.update(self.nodes[node.key], completed=progress["step"], total=progress["steps"], status=status)

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


_STOPS = {
    1: "Finishing what is running; press Ctrl-C again to stop it now.",
    2: "Stopping what is running; what had finished is kept.",
}


def _forecast(plan: Plan) -> dict[str, float]:
    """Return how many seconds each node of a plan is expected to take."""
    return {change.key: (change.forecast or {}).get("seconds", 0.1) for change in plan.work}


def _outcome(node: GraphNode, attempt: Attempt) -> str:
    """Return `rank/r=8/seed=1:train: done in 12 s, loss 1.234, 5,678 tokens/s`."""
    text = f"{node.address}: {attempt.outcome} in {duration(attempt.seconds)}"
    if attempt.outcome != "done":
        return f"{text}: {attempt.message}"
    loss = attempt.figures.get("final_loss")
    return text if loss is None else f"{text}, loss {loss:.3f}, {attempt.figures['tokens_per_second']:,.0f} tokens/s"
