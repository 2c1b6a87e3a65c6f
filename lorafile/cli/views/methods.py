"""What `lora methods` prints."""

import json
from typing import Any

from rich.console import Console

from lorafile.cli.views.table import Column, show_table
from lorafile.environment import gpus
from lorafile.specs.optimizers import optimizer_rows
from lorafile.specs.schedules import schedule_rows
from lorafile.specs.snapshot import declared
from lorafile.specs.tables.methods import METHODS, Method, probed, stays_out

_COLUMNS = (
    Column("method", "name"),
    Column("on"),
    Column("rank"),
    Column("int8"),
    Column("nf4"),
    Column("merges"),
    Column("together", omit=2),
    Column("paper", omit=1),
)
_REFUSED = (Column("method", "name"), Column("not offered, because", "text"))
_OPTIMIZERS = (Column("train.optim", "name"), Column("state and packing", "text"), Column("note", "text"))
_SCHEDULES = (
    Column("train.lr_scheduler_type", "name"),
    Column("its settings", "text"),
    Column("after warm-up", "text"),
)


def show_methods(out: Console) -> None:
    """Show a row for each method that is offered, those that are not with their reasons, optimizers and schedules."""
    rows = [
        [name, _place(method), method.rank or "–", *_can(name, method), _paper(method.paper)]
        for name, method in METHODS.items()
    ]
    show_table(_COLUMNS, rows, out)
    refused = [[name, stays_out(name)] for name in probed() if name not in METHODS]
    if refused:
        out.print()
        show_table(_REFUSED, refused, out)
    for columns, lines in ((_OPTIMIZERS, optimizer_rows(bool(gpus()))), (_SCHEDULES, schedule_rows())):
        out.print()
        show_table(columns, [[row.name, row.capabilities, row.note] for row in lines], out)


def _place(method: Method) -> str:
    """Return what a method is put on: `layers`, or what stands before a text."""
    row = next(row for row in probed().values() if row["config"] == method.config)
    return method.virtual or ("layers" if row["modules"] else "tokens")


def _can(name: str, method: Method) -> list[str]:
    able = ("int8" in method.bases, "nf4" in method.bases, method.merges, probed()[name]["together"])
    return ["yes" if can else "no" for can in able]


def _paper(paper: str) -> str:
    """Return an arXiv id, or the site of an address, which --json has in full."""
    return paper if "/" not in paper else paper.removeprefix("https://").partition("/")[0]


def methods_json() -> str:
    """Return every method of PEFT's by name, offered or not, and why; and every optimizer and schedule, as JSON."""
    names = (*METHODS, *(name for name in probed() if name not in METHODS))
    lists = {"optimizers": optimizer_rows(bool(gpus())), "schedules": schedule_rows()}
    named = {
        key: {row.name: {"can": row.capabilities, "note": row.note} for row in rows} for key, rows in lists.items()
    }
    return json.dumps({"methods": {name: _row(name) for name in names}, **named}, indent=2)


def _row(name: str) -> dict[str, Any]:
    lines, row = declared().get(name, {}), probed()[name]
    about = {"title": lines.get("title", name), "paper": lines.get("paper", ""), "rank": lines.get("rank", "")}
    return {"offered": name in METHODS, "why_not": stays_out(name), **about, **row}
