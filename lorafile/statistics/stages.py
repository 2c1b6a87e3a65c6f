"""How the looks of a study share its family-wise error rate, so that looking again cannot raise it.

A comparison that one look decides stands, and is not tested again; what is left open is tested at the next look, with
all seeds so far, at that look's share. The shares are fixed before anything is seen, so that by Bonferroni's
inequality the looks together call a true null difference real with at most the whole alpha, however many there come
to be (alpha spending in its plainest form: Lan and DeMets, 1983, "Discrete sequential boundaries for clinical
trials", Biometrika 70).
"""


def shares(alpha: float, keep: float, looks: int) -> tuple[float, ...]:
    """Return each look's share of alpha, the first look's first.

    :param alpha: of the whole study; `keep`: the share of what is left that each look leaves to those after it
    :return: [looks]; alpha times (1 - keep), then of the rest the same again: their sum stays below alpha
    """
    return tuple(alpha * keep**look * (1 - keep) for look in range(looks))
