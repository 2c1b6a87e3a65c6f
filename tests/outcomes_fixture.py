"""What each made-up run made of each example, such that its figures are exactly those of the run."""

import zlib
from typing import Any

import numpy as np
import pandas as pd

from lorafile.results import OutcomeKey

SHARED = 0.8  # how much of whether an answer is right lies in the example, not in the run


def outcomes(runs: list[dict[str, Any]]) -> dict[OutcomeKey, pd.DataFrame]:
    """Return (configuration, seed, split) -> one row for each example, for every run that is done."""
    found = {}
    for run in runs:
        for split in ("validation", "test"):
            if run["outcome"] == "done":
                found[run["configuration"], run["seed"], split] = _frame(run, split)
    return found


def _frame(run: dict[str, Any], split: str) -> pd.DataFrame:
    count = int(run[f"{split}.examples"])
    shared = np.random.default_rng(zlib.crc32(split.encode()))
    own = np.random.default_rng(zlib.crc32(f"{run['configuration']} {run['seed']} {split}".encode()))
    hard, tokens = shared.normal(size=count), shared.integers(4, 12, size=count)
    rank = np.argsort(np.argsort(SHARED * hard + (1 - SHARED**2) ** 0.5 * own.normal(size=count)))
    right = (rank < round(run[f"{split}.exact_match"] * count)).astype(float)
    loss = 0.2 * (SHARED * hard + own.normal(size=count))
    loss += run[f"{split}.log_loss"] - np.average(loss, weights=tokens)
    return pd.DataFrame({"row": range(count), "exact_match": right, "log_loss": loss, "tokens": tokens})
