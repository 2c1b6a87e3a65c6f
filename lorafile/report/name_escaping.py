"""Names on the page: escaped, kept from turning what stands around them, clamped where long, linked to their runs."""

import re
from collections.abc import Callable
from functools import cache

from markupsafe import Markup, escape

from lorafile.analysis.common.factors import setting_labels, sweeps
from lorafile.analysis.common.format import missing
from lorafile.analysis.common.scores import cells, names
from lorafile.results.results import Results

LONG = 160  # letters; a longer name is shown in a box that scrolls
MOST = 2000  # letters of a text without one

Show = Callable[[object], Markup]


def anchors(results: Results) -> dict[str, str]:
    """Return configuration, by each name that a sweep gives it -> the anchor of its runs: made of a number alone."""
    found = {name: f"c{at}" for at, name in enumerate(names(results))}
    for sweep, members in sweeps(results).items():
        for name, short in members.items():
            found.setdefault(f"{sweep}/{short}" if sweep else short, found[name])
    return found


def boxed(text: object) -> Markup:
    """Return text on its own: isolated, and in a box that scrolls where it is long."""
    return Markup("<bdi{}>{}</bdi>").format(_box(str(text)), text)


def isolation(results: Results, linked: bool = False) -> Show:
    """Return what escapes text and isolates the names in it: a right-to-left one turns nothing else.

    :param linked: names of configurations lead to their runs
    """
    places = anchors(results) if linked else {}
    known = _known(results)
    longest_first = sorted((name for name in known if name), key=len, reverse=True)
    if not longest_first:
        return escape
    pattern = re.compile(r"(?<!\w)(" + "|".join(re.escape(name) for name in longest_first) + r")(?!\w)")

    def named(name: str) -> Markup:
        if name not in places:
            return boxed(name)
        kind = "run long" if len(name) > LONG else "run"
        return Markup('<a class="{}" href="#{}"><bdi>{}</bdi></a>').format(kind, places[name], name)

    @cache
    def isolate(text: object) -> Markup:
        if text in known:
            return named(str(text))
        parts = pattern.split(str(text))
        return Markup("").join(named(part) if at % 2 else _plain(part) for at, part in enumerate(parts))

    return isolate


def _plain(text: str) -> Markup:
    """Return text that stands between names; one long word without a break is no sentence, and is boxed."""
    endless = len(text) > MOST or max(map(len, text.split()), default=0) > LONG
    return boxed(text) if endless else escape(text)


def _box(text: str) -> Markup:
    return Markup(' class="long" tabindex="0"') if len(text) > LONG else Markup("")


def _known(results: Results) -> set[str]:
    """Return every name, and whatever else holds letters that could turn a line around."""
    known = {*names(results), str(results.study), *anchors(results), *sweeps(results)}
    foreign = {
        str(item) for column in ("outcome", "message") for item in cells(results.runs, column) if not missing(item)
    }
    foreign |= {claim.text for claim in results.claims}
    foreign |= {text for published in results.published for text in (published.name, published.source)}
    for factor in results.configurations.columns:
        if factor not in ("configuration", "aliases") and "method" in results.configurations.columns:
            foreign |= set(setting_labels(results, str(factor)).values())
    return known | {text for text in foreign if not text.isascii()}
