"""Figures of predicted numbers: mean squared error, Pearson's and Spearman's correlation, as `evaluate` names them.

`reference` and `answer` of a row are numbers.
"""

from typing import TYPE_CHECKING

from lorafile.engine.metrics.classification import Rows, Scored, mean_of, pseudo_values

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray

_LEAST = 1e-6  # the share of a sum of squares that has to be left for a difference to be exact enough


def mse(rows: Rows) -> Scored:
    """Return the mean squared error, as `sklearn.metrics.mean_squared_error` does; for each example its own."""
    return mean_of([(row["answer"] - row["reference"]) ** 2 for row in rows])


def pearson(rows: Rows) -> Scored:
    """Return Pearson's correlation of predicted and true numbers, as `scipy.stats.pearsonr` does.

    For each example the product of its two standardized numbers, whose mean it is. 0 where it is not defined: where
    all predictions, or all references, are equal.
    """
    return _scored(*_numbers(rows))


def pearson_influence(rows: Rows) -> list[float]:
    """Return each example's pseudo-value: without it a sum of products loses n / (n − 1) times its own product."""
    import numpy as np

    x, y = _numbers(rows)
    n = len(x)
    if n < 2:
        return pseudo_values(_correlation(x, y), [])
    dx, dy = x - x.mean(), y - y.mean()
    sums = ((dx * dy).sum(), (dx * dx).sum(), (dy * dy).sum())
    own = (dx * dy, dx * dx, dy * dy)
    xy, xx, yy = (total - n / (n - 1) * each for total, each in zip(sums, own, strict=True))
    exact = (xx > _LEAST * sums[1]) & (yy > _LEAST * sums[2])
    without = [
        _over(*row) if is_exact else _correlation(np.delete(x, at), np.delete(y, at))
        for at, (*row, is_exact) in enumerate(zip(xy, xx, yy, exact, strict=True))
    ]
    return pseudo_values(_correlation(x, y), without)


def spearman(rows: Rows) -> Scored:
    """Return Spearman's rank correlation, as `scipy.stats.spearmanr` does; for each example the product of its ranks.

    It is Pearson's correlation of the ranks, where equal numbers share the mean of theirs.
    """
    return _scored(*map(_ranks, _numbers(rows)))


def spearman_influence(rows: Rows) -> list[float]:
    """Return each example's pseudo-value; without it ranks above its own fall by one, and equal ones by a half."""
    ranks = [_ranks(numbers) for numbers in _numbers(rows)]
    without = []
    for at in range(len(rows) if len(rows) > 1 else 0):
        x, y = (_without(numbers, at) for numbers in ranks)
        without.append(_correlation(x, y))
    return pseudo_values(_correlation(*ranks), without)


def _numbers(rows: Rows) -> "tuple[Array, Array]":
    import numpy as np

    return np.array([row["reference"] for row in rows], float), np.array([row["answer"] for row in rows], float)


def _scored(x: "Array", y: "Array") -> Scored:
    if _is_constant(x) or _is_constant(y):
        return 0.0, [0.0] * len(x)
    each = (x - x.mean()) / x.std() * (y - y.mean()) / y.std()
    return _correlation(x, y), each.tolist()


def _correlation(x: "Array", y: "Array") -> float:
    if _is_constant(x) or _is_constant(y):
        return 0.0
    dx, dy = x - x.mean(), y - y.mean()
    return _over((dx * dy).sum(), (dx * dx).sum(), (dy * dy).sum())


def _is_constant(numbers: "Array") -> bool:
    return bool((numbers == numbers[0]).all())


def _over(xy: float, xx: float, yy: float) -> float:
    """Return a correlation from sums of products, inside −1 to 1 whatever was rounded."""
    return min(max(float(xy / (xx**0.5 * yy**0.5)), -1.0), 1.0)


def _ranks(numbers: "Array") -> "Array":
    """Return the rank of each number, from 1; equal ones share the mean of theirs."""
    import numpy as np

    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks: Array = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks


def _without(ranks: "Array", at: int) -> "Array":
    import numpy as np

    own = ranks[at]
    return np.delete(ranks - (ranks > own) - 0.5 * (ranks == own), at)
