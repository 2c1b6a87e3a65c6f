"""What `lora diff` shows: the review of an experiment on one page, as text, JSON and Markdown."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.console import COLOURS, FORMAT_VERSION, SYMBOLS
from lorafile.cli.views.plan import counted, listed, marked
from lorafile.plan.diff import Diff, Item
from lorafile.plan.plan import Action
from lorafile.units import duration

_ADDED, _RENAMED, _ANEW, _MORE = SYMBOLS[Action.RUN], ">", SYMBOLS[Action.RETRY], SYMBOLS[Action.RUN]
_MOST = 12  # configurations that are shown one by one
_REMOVED = SYMBOLS[Action.UNDECLARED]
_COLOUR = {_ADDED: COLOURS[Action.RUN], _ANEW: COLOURS[Action.RETRY], _REMOVED: "red", _RENAMED: "cyan"}


def show_diff(found: Diff, out: Console) -> None:
    """Show what differs and what it would cost."""
    out.print(f"[bold]{escape(found.old)}[/] → [bold]{escape(found.new)}[/]")
    for mark, name, words in lines(found):
        out.print(f"  [{_COLOUR[mark]}]{mark}[/] {escape(name)}  [dim]{escape(words)}[/]")
    for sentence in conclusion(found):
        out.print(escape(sentence))


def diff_json(found: Diff) -> str:
    """Return what differs as documented JSON."""
    content = {"format_version": FORMAT_VERSION, "summary": " ".join(conclusion(found)), **asdict(found)}
    return json.dumps(content, indent=2, allow_nan=False)


def diff_markdown(found: Diff) -> str:
    """Return what differs as a comment for a pull request."""
    first, *rest = conclusion(found)
    text = [f"### {marked(found.new)}", "", f"**{marked(first)}** {' '.join(marked(one) for one in rest)}", ""]
    rows = list(lines(found))
    if rows:
        text += ["| | | |", "|---|---|---|"]
        text += [f"| `{mark}` | {marked(name)} | {marked(words)} |" for mark, name, words in rows]
    return "\n".join([*text, "", f"Compared with {marked(found.old)}."]) + "\n"


def lines(found: Diff) -> Iterator[tuple[str, str, str]]:
    """Yield (mark, name, what of it) for everything that differs."""
    for item in _together(found.added):
        yield _ADDED, listed(item.names), _each(item)
    for was, name in found.renamed[:_MOST]:
        yield _RENAMED, name, f"was {was}; its results stay"
    if len(found.renamed) > _MOST:
        yield _RENAMED, f"… and {len(found.renamed) - _MOST} more", "renamed; their results stay"
    for item in found.retrained:
        yield _ANEW, listed(item.names), f"trained anew, {listed(item.why)}: {_each(item)}"
    for item in found.more:
        yield _MORE, listed(item.names) if item.names[0] else "data", _each(item)
    for item in found.fewer:
        yield _REMOVED, listed(item.names) if item.names[0] else "data", f"no longer {_counts(item)}"
    for item in _together(found.removed):
        done = f"; {item.finished} finished, kept in state" if item.finished else ""
        yield _REMOVED, listed(item.names), f"no longer declared: {_counts(item)}{done}"


def conclusion(found: Diff) -> list[str]:
    """Return what changes in one sentence, whether anything is trained again, and the price."""
    numbers = {
        "added": len(found.added),
        "renamed": len(found.renamed),
        "removed": len(found.removed),
        "trained anew": sum(len(item.names) for item in found.retrained),
    }
    told = [f"{number} {word}" for word, number in numbers.items() if number]
    if told:
        number, word = told[0].split(" ", 1)
        told[0] = f"{number} configuration{'' if number == '1' else 's'} {word}"
    sentences = [f"{', '.join(told) or 'No configuration changes'}."]
    if not found.retrained:
        sentences.append("Nothing is trained again.")
    sentences += found.moved
    if found.cost.work:
        price = f", {found.price:.2f} at {found.hourly:g} an hour" if found.price is not None else ""
        sentences.append(f"It would run {_nodes(found.cost)}{price}.")
    else:
        sentences.append("It would run nothing.")
    if found.before.work:
        sentences.append(f"Without it there would be {_nodes(found.before)} to run already.")
    if found.beside:
        sentences.append(f"Changed without a run: {', '.join(f'[{name}]' for name in found.beside)}.")
    return sentences


def _nodes(item: Item) -> str:
    return f"{item.work} node{'' if item.work == 1 else 's'}, {duration(item.seconds)} of work"


def _together(items: Sequence[Item]) -> Sequence[Item]:
    """Return the items, or where they are many one for all that have as many nodes of each kind."""
    if len(items) <= _MOST:
        return items
    groups: dict[tuple[tuple[str, int], ...], list[Item]] = {}
    for item in items:
        groups.setdefault(tuple(item.kinds.items()), []).append(item)
    return [
        Item(
            tuple(name for one in members for name in one.names),
            {kind: count * len(members) for kind, count in kinds},
            *(sum(values) for values in zip(*((one.work, one.seconds, one.finished) for one in members), strict=True)),
        )
        for kinds, members in groups.items()
    ]


def _each(item: Item) -> str:
    return f"{'each ' * (len(item.names) > 1)}{_of(item)}"


def _counts(item: Item) -> str:
    """Return `3 train, 6 predict`, of several configurations what each of them has."""
    return counted({kind: count // len(item.names) for kind, count in item.kinds.items()})


def _of(item: Item) -> str:
    """Return `3 train, 6 predict, 12 min`; of several configurations what each of them has, and the time of all."""
    price = f", {duration(item.seconds)}{' together' * (len(item.names) > 1)}" if item.work else ""
    done = f"; {item.finished} finished already" if item.finished else ""
    return f"{_counts(item)}{price}{done}"
