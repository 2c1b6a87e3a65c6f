"""What an apply shows while it runs: bars on a terminal, plain lines elsewhere."""

from typing import TYPE_CHECKING, Any

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

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def on_node_start(self, node: GraphNode) -> None:
        """Say nothing yet."""

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Say what a node has to say in words; a log has no use for a bar."""
        if "note" in progress:
            self.out.print(escape(f"{node.address}: {progress['note']}"))

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Say what ended, and how."""
        self.ended_nodes.add(node.key)  # what is taken up again ends twice
        told = (
            f"[{len(self.ended_nodes)}/{self.total}] {node.address}: {attempt.outcome} in {duration(attempt.seconds)}"
        )
        self.out.print(escape(told + _figure(attempt)))

    def on_stop(self, times: int) -> None:
        """Say what will happen."""
        self.out.print(_STOPS.get(times, "Breaking off."))

    def on_next_stage(self, plan: Plan) -> None:
        """Say what was chosen, and how much follows."""
        self.total += len(plan.work)
        for line in stage_lines(plan):
            self.out.print(escape(line))


class Bars:
    """Progress on a terminal: a bar for the plan, and one for each node in work with its loss and tokens a second."""

    def __init__(self, plan: Plan, out: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.seconds = {change.key: (change.forecast or {}).get("seconds", 0.1) for change in plan.work}
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            console=out,
            transient=True,
        )
        self.all = self.bars.add_task(f"{len(plan.work)} nodes", total=sum(self.seconds.values()), told="")
        self.nodes: dict[str, TaskID] = {}
        self.count = len(plan.work)
        self.ended_nodes: set[str] = set()

    def __enter__(self) -> "Bars":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def on_node_start(self, node: GraphNode) -> None:
        """Show a bar."""
        self.nodes[node.key] = self.bars.add_task(escape(node.address), total=None, told="")

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Move the bar, and say what a node has to say in words."""
        if "note" in progress:
            self.bars.console.print(escape(f"{node.address}: {progress['note']}"))
            return
        told = f"{progress['step']}/{progress['steps']}"
        if "loss" in progress:
            told += f"  loss {progress['loss']:.3f}  {progress['tokens_per_second']:,.0f} tokens/s"
        if node.key in self.nodes:
            self.bars.update(self.nodes[node.key], completed=progress["step"], total=progress["steps"], told=told)

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Take the bar away and move the plan's."""
        if node.key in self.nodes:
            self.bars.remove_task(self.nodes.pop(node.key))
        self.ended_nodes.add(node.key)
        self.bars.advance(self.all, self.seconds.get(node.key, 0.0))
        task = self.bars.tasks[0]
        share = min(1.0, task.completed / task.total) if task.total else 1.0
        left = f"about {duration((task.elapsed or 0) * (1 - share) / share)} left" if share > 0.02 else ""
        self.bars.update(self.all, told=f"{len(self.ended_nodes)}/{self.count} nodes  {left}")
        if attempt.kind == "train" or attempt.outcome != "done":
            self.bars.console.print(
                f"{escape(node.address)}: {attempt.outcome} in {duration(attempt.seconds)}{escape(_figure(attempt))}"
            )

    def on_stop(self, times: int) -> None:
        """Say what will happen."""
        self.bars.console.print(_STOPS.get(times, "Breaking off."))

    def on_next_stage(self, plan: Plan) -> None:
        """Say what was chosen, and lengthen the plan's bar."""
        more = {change.key: (change.forecast or {}).get("seconds", 0.1) for change in plan.work}
        self.seconds |= more
        self.count += len(more)
        total = (self.bars.tasks[0].total or 0.0) + sum(more.values())
        self.bars.update(self.all, total=total, description=f"{self.count} nodes")
        for line in stage_lines(plan):
            self.bars.console.print(escape(line))


_STOPS = {
    1: "Finishing what is running; press Ctrl-C again to stop it now.",
    2: "Stopping what is running; what had finished is kept.",
}


def _figure(attempt: Attempt) -> str:
    if attempt.outcome != "done":
        return f": {attempt.message}"
    loss = attempt.figures.get("final_loss")
    return f", loss {loss:.3f}, {attempt.figures['tokens_per_second']:,.0f} tokens/s" if loss is not None else ""
