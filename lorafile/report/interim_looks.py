"""The looks at a study, as the methods tell them: seeds, configurations, dates, and each one's share of alpha."""

from typing import Any

from lorafile.analysis.common.format import level
from lorafile.analysis.common.scores import cells
from lorafile.results.results import Results
from lorafile.statistics.stages import shares
from lorafile.units import listing

_NOTHING = 1e-12  # of alpha


def lines(results: Results) -> list[tuple[str, str]]:
    """Return (name, value) for the first look and for each stage that is one, and what is kept for later ones."""
    rows = looks(results)
    if not rows:
        return []
    total, kept = results.verdict.alpha, results.verdict.alpha - sum(row["alpha"] for row in rows)
    found = []
    for number, row in enumerate(rows):
        who = f"seeds {listing(map(str, row['seeds']), 20)} of {listing(row['configurations'])}; " if number else ""
        tested = " for what was still open" if number else ""
        dated = f"; last run begun on {row['until']}" if row["until"] else ""
        name = f"stage {number}" if number else "first look"
        found.append((name, f"{who}tested at {level(row['alpha'])}{tested}{dated}"))
    left = f"{level(kept)} is kept for stages" if kept > _NOTHING else "none is kept for stages"
    return [*found, ("alpha", f"{level(total)} over all comparisons and looks, of which {left}")]


def looks(results: Results) -> list[dict[str, Any]]:
    """Return `seeds`, `configurations`, `alpha` (a share of one) and `until` (a date, or empty) of each look."""
    spent = shares(results.verdict.alpha, results.verdict.keep, len(results.looks))
    dates = results.look_dates or ("",) * len(results.looks)
    pairs = list(zip(cells(results.runs, "configuration"), cells(results.runs, "seed"), strict=True))
    return [
        {
            "seeds": [int(seed) for seed in seeds],
            "configurations": list(dict.fromkeys(str(name) for name, seed in pairs if seed in seeds)),
            "alpha": alpha,
            "until": until,
        }
        for seeds, alpha, until in zip(results.looks, spent, dates, strict=True)
    ]
