"""The graph of a study as Mermaid or DOT text, grouped so that a page can hold it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lorafile.cli.views.plan import KINDS
from lorafile.plan.plan import Action, Plan

MOST = 12  # configurations; of more, a sweep is one group
_FILL = {Action.RUN: "#d5f0d5", Action.RETRY: "#fdf0c8", Action.BLOCKED: "#f6d3d3", Action.DRIFT: "#ecd5f0"}
_ORDER = (Action.BLOCKED, Action.RETRY, Action.RUN, Action.DRIFT, Action.REUSE)  # what a box is coloured by, first


@dataclass
class Box:
    """All nodes of one kind in a group, or one node; drawn as one."""

    name: str
    label: str
    actions: Counter[Action] = field(default_factory=Counter)

    @property
    def words(self) -> str:
        """Return `train ×3`, and how many of them are still to be done."""
        number = self.actions.total()
        open_ = sum(self.actions[action] for action in (Action.RUN, Action.RETRY, Action.BLOCKED))
        left = f", {open_} to do" if 0 < open_ < number else ""
        return f"{self.label}{f' ×{number}' if number > 1 else ''}{left}"

    @property
    def action(self) -> Action:
        """What stands first among its nodes' actions."""
        return next(action for action in _ORDER if self.actions[action])


@dataclass
class Drawing:
    """Groups of boxes, and which box reads which: (what is read, who reads it)."""

    groups: dict[str, list[Box]] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    @property
    def boxes(self) -> Iterator[Box]:
        """Yield every box."""
        for members in self.groups.values():
            yield from members


def drawing(plan: Plan, full: bool = False) -> Drawing:
    """Return the drawing of a plan: a box for each kind of a configuration, of a sweep where there are many.

    What a box reads by way of another box is not drawn again.

    :param full: a box for each node
    """
    spec, nodes = plan.graph.spec, plan.graph.nodes
    many = len(spec.configurations) > MOST and not full
    numbers = Counter(c.sweep for c in spec.configurations)
    sweeps = {
        c.name: f"{c.sweep} ({numbers[c.sweep]} configurations)" if numbers[c.sweep] > 1 else c.name
        for c in spec.configurations
    }
    actions = {change.key: change.action for change in plan.changes}
    drawn, boxes, of_key = Drawing(), dict[tuple[str, str], Box](), dict[str, str]()
    order = sorted(nodes.values(), key=lambda node: KINDS.index(node.kind))
    for node in order:
        if node.key not in actions:
            continue
        owner = spec.owners.get(node.configuration, node.configuration)
        group = "data" if node.kind == "prepare" else sweeps[owner] if many else owner
        label = node.address if full else f"{node.split}" if node.kind == "prepare" else node.kind
        if (group, label) not in boxes:
            boxes[group, label] = Box(f"n{len(boxes)}", label)
            drawn.groups.setdefault(group, []).append(boxes[group, label])
        boxes[group, label].actions[actions[node.key]] += 1
        of_key[node.key] = boxes[group, label].name
    reads = ((key, node.key) for node in order for key in node.inputs.values())
    drawn.edges = _reduced((of_key[read], of_key[reader]) for read, reader in reads if {read, reader} <= of_key.keys())
    return drawn


def _reduced(edges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the edges of the transitive reduction, each once, in their order."""
    import networkx as nx

    drawn = list(dict.fromkeys(edges))
    kept = nx.transitive_reduction(nx.DiGraph(drawn))
    return [edge for edge in drawn if kept.has_edge(*edge)]


def mermaid(drawn: Drawing) -> str:
    """Return a drawing as a Mermaid flowchart."""
    lines = ["flowchart LR"]
    for number, (group, boxes) in enumerate(drawn.groups.items()):
        lines.append(f'  subgraph g{number}["{_for_mermaid(group)}"]')
        lines += [f'    {box.name}["{_for_mermaid(box.words)}"]:::{box.action.value}' for box in boxes]
        lines.append("  end")
    lines += [f"  {read} --> {reader}" for read, reader in drawn.edges]
    lines += [f"  classDef {action.value} fill:{fill}" for action, fill in _FILL.items() if _has(drawn, action)]
    return "\n".join(lines)


def dot(drawn: Drawing) -> str:
    """Return a drawing as a DOT digraph."""
    lines = ["digraph study {", "  rankdir=LR;", '  node [shape=box, style=filled, fillcolor="#ffffff"];']
    for number, (group, boxes) in enumerate(drawn.groups.items()):
        lines += [f"  subgraph cluster_{number} {{", f'    label="{_for_dot(group)}";']
        for box in boxes:
            fill = f', fillcolor="{_FILL[box.action]}"' if box.action in _FILL else ""
            lines.append(f'    {box.name} [label="{_for_dot(box.words)}"{fill}];')
        lines.append("  }")
    lines += [f"  {read} -> {reader};" for read, reader in drawn.edges]
    return "\n".join([*lines, "}"])


def _has(drawn: Drawing, action: Action) -> bool:
    return any(box.action is action for box in drawn.boxes)


def _for_mermaid(text: str) -> str:
    """Return text as Mermaid shows it: entities for what it would act on."""
    marks = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;", "\n": " "}
    return "".join(marks.get(each, each) for each in text)


def _for_dot(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
