"""What `lora diff` shows: the review of an experiment on one page, as text, JSON and Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.console import COLOURS, MOST, SYMBOLS, json_text
from lorafile.cli.views.plan import counted, listed, marked
from lorafile.plan.diff import Diff, Item
from lorafile.plan.plan import Action
from lorafile.units import and_more, duration, plural

_ADDED, _RENAMED, _AGAIN, _MORE = SYMBOLS[Action.RUN], ">", SYMBOLS[Action.RETRY], SYMBOLS[Action.RUN]
_REMOVED = SYMBOLS[Action.UNDECLARED]
_COLOUR = {_ADDED: COLOURS[Action.RUN], _AGAIN: COLOURS[Action.RETRY], _REMOVED: "red", _RENAMED: "cyan"}


def show_diff(changes: Diff, out: Console) -> None:
    """Show what differs and what it would cost."""
    out.print(f"[bold]{escape(changes.old)}[/] → [bold]{escape(changes.new)}[/]")
    for mark, name, words in lines(changes):
        out.print(f"  [{_COLOUR[mark]}]{mark}[/] {escape(name)}  [dim]{escape(words)}[/]")
    for sentence in conclusion(changes):
        out.print(escape(sentence))


def diff_json(changes: Diff) -> str:
    """Return what differs as documented JSON."""
    return json_text({"summary": " ".join(conclusion(changes)), **asdict(changes)})


def diff_markdown(changes: Diff) -> str:
    """Return what differs as a comment for a pull request."""
    first, *rest = conclusion(changes)
    text = [f"### {marked(changes.new)}", "", f"**{marked(first)}** {' '.join(map(marked, rest))}", ""]
    rows = list(lines(changes))
    if rows:
        text += ["| | | |", "|---|---|---|"]
        text += [f"| `{mark}` | {marked(name)} | {marked(words)} |" for mark, name, words in rows]
    return "\n".join([*text, "", f"Compared with {marked(changes.old)}."]) + "\n"


def lines(changes: Diff) -> Iterator[tuple[str, str, str]]:
    """Yield (mark, name, what of it) for everything that differs."""
    for item in _together(changes.added):
        yield _ADDED, listed(item.names), _each(item)
    for was, name in changes.renamed[:MOST]:
        yield _RENAMED, name, f"was {was}; its results are kept"
    if len(changes.renamed) > MOST:
        yield _RENAMED, and_more(len(changes.renamed), MOST), "renamed; their results are kept"
    for item in changes.retrained:
        yield _AGAIN, listed(item.names), f"trained again, {listed(item.why)}: {_each(item)}"
    for item in changes.more:
        yield _MORE, listed(item.names) if item.names[0] else "data", _each(item)
    for item in changes.fewer:
        yield _REMOVED, listed(item.names) if item.names[0] else "data", f"no longer {_counts(item)}"
    for item in _together(changes.removed):
        done = f"; {item.finished} finished, kept in the state" if item.finished else ""
        yield _REMOVED, listed(item.names), f"no longer declared: {_counts(item)}{done}"


def conclusion(changes: Diff) -> list[str]:
    """Return what changes in one sentence, whether anything is trained again, and the price."""
    numbers = {
        "added": len(changes.added),
        "renamed": len(changes.renamed),
        "removed": len(changes.removed),
        "trained again": sum(len(item.names) for item in changes.retrained),
    }
    nonzero = [(number, word) for word, number in numbers.items() if number]
    texts = [f"{plural(number, 'configuration')} {word}" for number, word in nonzero[:1]]
    texts += [f"{number} {word}" for number, word in nonzero[1:]]
    sentences = [f"{', '.join(texts) or 'No configuration changes'}."]
    if not changes.retrained:
        sentences.append("Nothing is trained again.")
    sentences += changes.moved
    if changes.cost.work:
        price = ""
        if changes.price is not None and (hourly := changes.hourly) is not None:
            price = f", {hourly.money(changes.price)} at {hourly.money(hourly)} an hour"
        sentences.append(f"It would run {_nodes(changes.cost)}{price}.")
    else:
        sentences.append("It would run nothing.")
    if changes.before.work:
        sentences.append(f"Without the change, {_nodes(changes.before)} would run anyway.")
    if changes.without_run:
        sentences.append(f"Changed without running anything: {', '.join(f'[{name}]' for name in changes.without_run)}.")
    return sentences


def _nodes(item: Item) -> str:
    return f"{plural(item.work, 'node')}, {duration(item.seconds)} of work"


def _together(items: Sequence[Item]) -> Sequence[Item]:
    """Return the items, or where they are many one for all that have as many nodes of each kind."""
    if len(items) <= MOST:
        return items
    groups: dict[tuple[tuple[str, int], ...], list[Item]] = {}
    for item in items:
        groups.setdefault(tuple(item.kinds.items()), []).append(item)
    return [
        Item(
            tuple(name for member in members for name in member.names),
            {kind: count * len(members) for kind, count in kinds},
            sum(member.work for member in members),
            sum(member.seconds for member in members),
            sum(member.finished for member in members),
        )
        for kinds, members in groups.items()
    ]


def _each(item: Item) -> str:
    """Return `3 train, 6 predict, 12 min`; of several configurations what each of them has, and the time of all."""
    if not item.kinds:
        return "nothing new: already declared under another name"
    several = len(item.names) > 1
    price = f", {duration(item.seconds)}{' together' if several else ''}" if item.work else ""
    done = f"; {item.finished} finished already" if item.finished else ""
    return f"{'each ' if several else ''}{_counts(item)}{price}{done}"


def _counts(item: Item) -> str:
    """Return `3 train, 6 predict`, of several configurations what each of them has."""
    return counted({kind: count // len(item.names) for kind, count in item.kinds.items()})
