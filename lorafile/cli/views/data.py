"""What `lora data` shows: the catalogue, and a study's data as the model will see them."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from lorafile.cli.views.table import Column, show_table
from lorafile.results.datacard import leak_sentences
from lorafile.units import plural

_OPEN, _CLOSE = "⟦", "⟧"
_SUPERVISED, _READ, _CUT = "bold green", "default", "dim red strike"


def show_data(shown: dict[str, Any], out: Console) -> None:
    """Show examples, lengths, duplicates and leaks."""
    data = shown["data"]
    head = [f"[bold]{_plain(data['path'])}[/] as {data['format']}, in the tokens of {_plain(shown['model'])}"]
    about = [data["licence"] and f"licence: {data['licence']}", data["source"], data["revision"]]
    head += [" · ".join(_plain(part) for part in about if part)] if any(about) else []
    for line in head:
        out.print(line)
    if data["private"]:
        out.print("[yellow]The data are private:[/] their text is shown here, but in no report, tracker or export.")
    for split in shown["splits"]:
        for example in split["examples"]:
            _show_example(example, split["split"], out)
    if any(split["supervised_fraction"] is not None for split in shown["splits"]):
        out.print(_key(out))
    out.print()
    _show_lengths(shown["splits"], out)
    for line in notes(shown):
        out.print(line)


def _show_example(example: dict[str, Any], split: str, out: Console) -> None:
    title = f"{split}, row {example['row']}: "
    if "label" in example:
        title += f"{example['tokens']} tokens, label {_plain(example['label'])}"
    else:
        title += f"{example['supervised']} of {example['tokens']} tokens supervised"
    title += f", {example['cut']} cut" if example["cut"] else ""
    title += "; excluded" if example["left_out"] else ""
    text = Text()
    for part in example["parts"]:
        if part["cut"] and not out.is_terminal:
            continue
        marked = part["supervised"] and not out.is_terminal
        style = _CUT if part["cut"] else _SUPERVISED if part["supervised"] else _READ
        text.append(f"{_OPEN}{part['text']}{_CLOSE}" if marked else part["text"], style=style)
    out.print()
    if out.is_terminal:
        out.print(Panel(text, title=title, title_align="left", border_style="dim", expand=True))
    else:
        out.print(title)
        out.print(text)


def _key(out: Console) -> str:
    if not out.is_terminal:
        return f"\n{_OPEN}…{_CLOSE} is supervised: the loss counts it. The rest is only read."
    return f"[{_SUPERVISED}]green[/]: supervised, the loss counts it · white: only read · [{_CUT}]struck out[/]: cut"


_LENGTHS = (
    Column("split"),
    Column("rows", right=True),
    Column("mean", right=True, omit=2),
    Column("median", right=True),
    Column("95 %", right=True),
    Column("longest", right=True),
    Column("too long", right=True),
    Column("supervised", right=True, omit=3),
    Column("all", right=True, omit=1),
    Column("repeated rows", right=True),
)


def _show_lengths(splits: list[dict[str, Any]], out: Console) -> None:
    """Show lengths in tokens of each split."""
    rows = []
    for split in splits:
        tokens, repeated = split["tokens"], split["duplicates"]
        several = f"{repeated['normalised']} ({repeated['exact']} exactly)" if repeated["normalised"] else "none"
        share = f"{100 * split['too_long'] / tokens['count']:.1f} %"
        many = f"{split['too_long']:,}" if split["measured"] == split["rows"] else share
        long = f"{many} > {split['max_length']}" if split["too_long"] else "none"
        row = [split["split"], f"{split['rows']:,}", f"{tokens['mean']:.1f}", f"{tokens['median']:g}"]
        fraction = split["supervised_fraction"]
        supervised = "" if fraction is None else f"{100 * fraction:.1f} %"
        rows.append([*row, f"{tokens['p95']}", f"{tokens['max']}", long, supervised, f"{tokens['total']:,}", several])
    out.print("[bold]Tokens[/]")
    show_table(_LENGTHS, rows, out)


def notes(shown: dict[str, Any]) -> list[str]:
    """Say what was only sampled, and which held-out rows are in another split."""
    lines = [line for split in shown["splits"] for line in _of_answers(split)]
    for count, text in (("measured", "lengths of {} rows, sampled evenly."), ("compared", "{} rows were compared.")):
        sampled = [split for split in shown["splits"] if split[count] < split["rows"]]
        shares = {split["split"]: f"{split[count]:,} of {split['rows']:,}" for split in sampled}
        lines += [f"[dim]{name}: {text.format(share)}[/]" for name, share in shares.items()]
    leaking = leak_sentences({"leaks": shown["leaks"], "path": shown["data"]["path"]})
    lines += [f"[yellow]Leak:[/] {_plain(line)}" for line in leaking]
    if shown["leaks"] and not leaking:
        lines.append("No held-out row is in another split.")
    return [*lines, *map(_plain, shown["notices"])]


def _of_answers(split: dict[str, Any]) -> list[str]:
    """Say which examples have no answer, of those that were looked at."""
    of = f" of {split['measured']:,} rows" if split["measured"] < split["rows"] else ""
    texts = {
        "answers_lost": f"excluded: no answer is left at {split['max_length']} tokens.",
        "empty_answers": "with an empty answer, which trains the model to say nothing.",
    }
    counts = {name: plural(split[name], "example") for name in texts if split[name]}
    return [f"[yellow]{split['split']}:[/] {count}{of} {texts[name]}" for name, count in counts.items()]


def show_catalogue(entries: dict[str, dict[str, Any]], out: Console) -> None:
    """Show every set of the catalogue."""
    columns = [Column("name"), Column("format"), Column("licence", "text", omit=2)]
    columns += [Column("suggested metrics", "text", omit=1), Column("what", "text")]
    rows = []
    for name, entry in entries.items():
        about = entry["about"]
        rows.append([name, entry["format"], about["licence"], ", ".join(about["metrics"]), about["what"]])
    show_table(columns, rows, out)
    out.print('\nUse one with data.path = "gsm8k", or a local copy with data.path = "…" and data.like = "gsm8k".')


def _plain(text: Any) -> str:
    return escape(str(text))
