"""Numbers, sizes, times, lists and hints as every message writes them; one place for each."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Self

_MOST_ROWS = 60  # of a table in a notebook
_LONG = 40  # characters of a column's name


def duration(seconds: float) -> str:
    """Return a length of time for people.

    :param seconds: may be infinite
    """
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if math.isfinite(seconds) else "forever"


def size(count: float) -> str:
    """Return a number of bytes for people, in decimal units: 1 GB is 10^9 bytes."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


class Price(float):
    """What an hour of one device costs: a number, with the currency as the user typed it.

    :ivar currency: `$`, `EUR`, or nothing; `leads`: whether it stands before the number
    """

    currency: str
    leads: bool

    def __new__(cls, amount: float, currency: str = "", leads: bool = False) -> Self:
        """Return a price; one that is a price already stays what it is."""
        price = super().__new__(cls, amount)
        price.currency, price.leads = currency, leads
        if isinstance(amount, Price):
            price.currency, price.leads = amount.currency, amount.leads
        return price

    def money(self, amount: float) -> str:
        """Return an amount in this currency: `$84.00`, `84.00 EUR`."""
        space = "" if self.leads and not self.currency.isalpha() else " "
        number = f"{amount:.2f}" if amount >= 0.005 or not amount else f"{amount:.1g}"
        parts = (self.currency, number) if self.leads else (number, self.currency)
        return space.join(filter(None, parts))


def memory_size(count: float) -> str:
    """Return a number of bytes of memory for people, in the units that cards are sold in: 1 GiB is 2^30 bytes."""
    if round(count / 2**20) < 1000:
        return f"{count / 2**20:.3g} MiB"
    return f"{count / 2**30:.1f} GiB"


def plural(count: int, noun: str) -> str:
    """Return `1 run`, `1,300 runs`."""
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"


def listing(items: Iterable[str], most: int = 6) -> str:
    """Return `a, b and c`; of more than `most` items, `a, b and 7 more`."""
    names = list(items)
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""


def column_list(columns: Iterable[Any]) -> str:
    """Return the columns of a data set as messages name them: long names are cut in the middle."""
    names = [str(column) for column in columns]
    return ", ".join(name if len(name) <= _LONG else f"{name[: _LONG // 2]}…{name[-_LONG // 4 :]}" for name in names)


def header_hint(columns: Iterable[Any]) -> str:
    """Return a sentence where the names of columns look like a row: with a number, or a whole text, among them."""
    names = [str(column).strip() for column in columns]
    if len(names) < 2 or not any(re.fullmatch(r"-?[0-9.]+", name) or len(name) > _LONG for name in names):
        return ""
    return " These look like a row: for a table without a header line, set data.column_names."


def and_more(total: int, shown: int, what: str = "") -> str:
    """Return `… and 7 more` where a list of lines was cut, with what they are; nothing where it was not."""
    return f"… and {total - shown:,} more{what and f' {what}'}" if total > shown else ""


def closest(word: str, allowed: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the allowed word that a mistyped one is most like, if any is like it.

    :param cutoff: from 0 (anything) to 1 (the same word), as in `difflib.get_close_matches`
    """
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(allowed), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, allowed: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    """Return `did you mean "…"?` for the closest allowed word, or another hint."""
    near = closest(word, allowed, cutoff)
    return f'did you mean "{near}"?' if near is not None else otherwise


def html_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], lines: Iterable[str] = (), title: str = ""
) -> str:
    """Return lines of text and a table as HTML for a notebook, with everything escaped; of many rows the first ones."""
    from markupsafe import escape

    def row(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    shown = list(rows)
    body = "".join(row(cells, "td") for cells in shown[:_MOST_ROWS])
    more = and_more(len(shown), min(len(shown), _MOST_ROWS))
    texts = "".join(f"<p>{escape(line)}</p>" for line in (*lines, *filter(None, [more])))
    head = f"<h4>{escape(title)}</h4>" if title else ""
    return f"{head}{texts}" + (f"<table>{row(columns, 'th')}{body}</table>" if shown else "")


def utc_now() -> str:
    """Return this moment as every record writes it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
