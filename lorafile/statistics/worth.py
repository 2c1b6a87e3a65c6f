"""What weighted sums of figures are worth: the variances of one of them, or of many at once, and their freedom."""

from collections.abc import Sequence
from math import inf, nan
from typing import NamedTuple

import numpy as np

Numbers = np.ndarray | float
Part = tuple[Numbers, Numbers]  # a mean square in the units of the sum, and its degrees of freedom


class Worth(NamedTuple):
    """Of each sum: itself, the variance that seeds and that examples bring, and degrees of freedom.

    :ivar df: of the whole; `runs_df`: of the run variance alone
    """

    difference: np.ndarray
    runs: np.ndarray
    examples: np.ndarray
    df: np.ndarray
    runs_df: np.ndarray


def worth(paired: np.ndarray, least: Numbers, runs: Sequence[Part], left: Sequence[Part], unseen: Numbers) -> Worth:
    """Return what sums are worth; a part that one of them has not is 0 with any degrees of freedom but 0.

    :param paired: [..., examples], each example's own sum; all others are [...], or a number for all
    :param least: what is no larger is rounding
    :param runs: what runs bring; `left`: what the seed-by-example residual puts into the variance between examples
    :param unseen: the variance is at least this
    """
    n = paired.shape[-1]
    paired = np.where(abs(paired) > np.expand_dims(least, -1), paired, 0.0)
    brought = np.asarray(sum(square for square, _ in runs))
    between = paired.var(axis=-1, ddof=1) / n if n > 1 else np.full(paired.shape[:-1], nan)
    between = np.where(between < np.square(least), 0.0, between)
    examples = np.maximum(between - sum(square for square, _ in left), 0.0)
    vary, short = examples > 0, brought + examples < unseen
    examples = np.where(short, unseen - brought, examples)
    held = [(np.where(short, examples, np.where(vary, between, 0.0)), max(n - 1.0, 1.0))]
    held += [(np.where(vary & ~short, square, 0.0), df) for square, df in left]
    difference = paired.mean(axis=-1)
    difference = np.where(abs(difference) > least, difference, 0.0)
    return Worth(difference, brought, examples, degrees(runs, held, examples), satterthwaite(runs))


def degrees(runs: Sequence[Part], held: Sequence[Part], examples: Numbers) -> np.ndarray:
    """Return the degrees of freedom of a difference: Satterthwaite's, made safe for few runs.

    Where the run variance has few degrees of freedom and is too small by chance, the examples seem to carry the
    difference, and their many degrees of freedom come at the very moment at which the error is too small: with two
    runs of each of two configurations, up to 8 % of null differences would be called real at 5 %. So here, and only
    here, runs count for more by twice the relative variance of their mean square, 2 / df; it is then 5.3 %. Nothing
    changes where runs or examples are all that varies, and next to nothing from ten degrees of freedom.

    :param runs: what runs bring; `held`: what makes up the examples' variance
    :param examples: the examples' variance
    """
    alone, total = satterthwaite(runs), sum(square for square, _ in runs)
    likely = total * (1 + 4 / alone)
    return satterthwaite([(likely, alone), *held], likely + examples)


def satterthwaite(parts: Sequence[Part], total: Numbers | None = None) -> np.ndarray:
    """Return the degrees of freedom of sums of mean squares (Satterthwaite, 1946).

    :param parts: one that is subtracted counts as well
    :param total: the sum, where not every part is added
    """
    whole = sum(square for square, _ in parts) if total is None else total
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.asarray(sum(np.square(square) / df for square, df in parts))
        return np.where(below == 0, inf, np.square(whole) / below)
