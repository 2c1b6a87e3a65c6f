"""A made-up study of rank × learning rate: rank matters at tuned rates only, and the highest rate diverges."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from outcomes_fixture import outcomes

from lorafile.results import Results

RANKS, RATES = (1, 4, 16, 64), (1e-5, 1e-4, 1e-3, 1e-2, 3e-2)
# exact match at rank 1 and at rank 64, on each rate; ranks between lie between
TUNED = {1e-5: (0.20, 0.21), 1e-4: (0.35, 0.42), 1e-3: (0.45, 0.85), 1e-2: (0.30, 0.62), 3e-2: (0.15, 0.12)}
FLAT = {rate: (0.40 + at / 20, 0.60 + at / 20) for at, rate in enumerate(RATES)}  # both matter, neither depends


def grid(
    ends: Mapping[float, tuple[float, float]] = TUNED,
    seeds: Sequence[int] = (1, 2, 3),
    lost: Mapping[tuple[int, float, int], str] = {},
    spread: float = 0.012,
    examples: int = 200,
) -> Results:
    """Return the study; `lost`: (rank, rate, seed) -> how that run ended."""
    noise = random.Random(11)
    configurations, runs = [], []
    for rate in ends:
        for at, rank in enumerate(RANKS):
            name = f"grid/r={rank},learning_rate={rate:g}"
            settings = {"method": "lora", "lora.r": rank, "train.learning_rate": rate}
            about = {"configuration": name, "sweep": "grid"}
            low, high = ends[rate]
            for seed in seeds:
                runs.append(about | _run(low + (high - low) * at / 3, noise.gauss(0, spread), examples))
                runs[-1] |= {
                    "seed": seed,
                    "key": f"{len(runs):064x}",
                    "message": "",
                    "trainable_parameters": 4096 * rank,
                }
                if word := lost.get((rank, rate, seed)):
                    runs[-1] = {key: value for key, value in runs[-1].items() if "." not in key} | {"outcome": word}
            configurations.append(about | settings | {"aliases": [], "trained": True, "replicates": len(seeds)})
    none = pd.DataFrame()
    made = {"configurations": pd.DataFrame(configurations), "runs": pd.DataFrame(runs)}
    return Results(
        "grid", "q?", "t", "exact_match", ("exact_match",), tuple(seeds), profiles=none, curves=none,
        outcomes=outcomes(runs), **made,
    )  # fmt: skip


def _run(share: float, noise: float, examples: int) -> dict[str, Any]:
    right = round((share + noise) * examples) / examples
    figures = {"exact_match": right, "log_loss": 2 - right, "examples": examples}
    return {"outcome": "done"} | {
        f"{split}.{key}": value for split in ("validation", "test") for key, value in figures.items()
    }
