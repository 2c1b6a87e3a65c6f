"""What each example adds to a figure that is no mean of its examples' outcomes."""

from collections.abc import Iterable


def pseudo_values(figure: float, without: Iterable[float]) -> list[float]:
    """Return each example's jackknife pseudo-value, n · figure − (n − 1) · figure without it (Tukey, 1958).

    Their mean is the figure, up to its bias in 1/n, and the variance of that mean is the figure's: so that examples can
    be paired and compared as those of a plain mean are.

    :param without: the figure over all examples but one, for each of them; nothing where there is one example alone
    """
    rest = list(without)
    return [len(rest) * figure - (len(rest) - 1) * one for one in rest] or [figure]
