"""What was done with the adapters of the made-up study: looked into, cut to smaller ranks, merged."""

import random
from dataclasses import replace
from typing import Any

import pandas as pd

from lorafile.results import Results

_TYPES = ("q_proj", "k_proj", "v_proj", "o_proj")
_LAYERS = 16


def with_adapters(results: Results, seeds: tuple[int, ...]) -> Results:
    """Return the results with the rank sweep's adapters looked into, cut and merged."""
    noise = random.Random(3)
    ranks = {f"rank/r={rank}": rank for rank in (4, 8, 16, 32)}
    every = [(name, rank, seed) for name, rank in ranks.items() for seed in seeds]
    modules = [row for name, rank, seed in every for row in _modules(name, rank, seed, noise)]
    drift = [row for name, rank, seed in every for row in _drift(name, rank, seed, noise)]
    return replace(
        results,
        inspections=pd.DataFrame([_inspection(name, rank, seed, noise) for name, rank, seed in every]),
        inspected_modules=pd.DataFrame(modules),
        representations=pd.DataFrame(drift),
        truncations=pd.DataFrame(_truncations(results, noise)),
        merges=pd.DataFrame([row for name, _, seed in every for row in _merges(name, seed, noise)]),
    )


def _inspection(name: str, rank: int, seed: int, noise: random.Random) -> dict[str, Any]:
    row = {"configuration": name, "seed": seed, "trainable_parameters": rank * 212_992}
    row |= {"total_parameters": 1_235_814_400, "trainable_share": rank * 212_992 / 1_235_814_400}
    row |= {"adapted_modules": 64, "relative_norm": 0.031 + noise.gauss(0, 0.001), "cka_last": 0.91}
    row |= {"effective_rank": rank**0.8, "stable_rank": rank**0.5, "energy_rank": rank**0.7, "cka_min": 0.88}
    return row


def _modules(name: str, rank: int, seed: int, noise: random.Random) -> list[dict[str, Any]]:
    rows = []
    for layer in range(_LAYERS):
        for kind in _TYPES:
            strength = 1 + layer / _LAYERS + (0.6 if kind in ("v_proj", "o_proj") else 0) + noise.gauss(0, 0.05)
            row = {"configuration": name, "seed": seed, "module": f"model.layers.{layer}.self_attn.{kind}"}
            row |= {"type": kind, "layer": layer, "parameters": rank * 3328, "rank": rank}
            row |= {"relative_norm": 0.02 * strength, "frobenius": strength, "spectral": strength / 2}
            row |= {"effective_rank": rank**0.8 * strength / 2, "stable_rank": rank**0.5, "energy_rank": rank // 2 + 1}
            rows.append(row)
    return rows


def _drift(name: str, rank: int, seed: int, noise: random.Random) -> list[dict[str, Any]]:
    fall = 0.004 + 0.001 * rank**0.5
    about = {"configuration": name, "seed": seed}
    return [
        {**about, "layer": n, "cka": 1 - fall * n - abs(noise.gauss(0, 0.002)) * n / 16} for n in range(_LAYERS + 1)
    ]


def _truncations(results: Results, noise: random.Random) -> list[dict[str, Any]]:
    rows = []
    for run in results.runs.to_dict("records"):
        name = run["configuration"]
        if run["sweep"] != "rank" or run["outcome"] != "done" or name not in ("rank/r=16", "rank/r=32"):
            continue
        own = int(name.partition("=")[2])
        for rank in (rank for rank in (16, 8, 4, 2) if rank < own):
            lost = {16: 0.001, 8: 0.004, 4: 0.021, 2: 0.09}[rank] + noise.gauss(0, 0.002)
            row = {"configuration": name, "sweep": "rank", "seed": run["seed"], "rank": rank, "of_rank": own}
            row |= {"kept_energy": 1 - lost, "adapter_bytes": rank * 851_968, "trainable_parameters": rank * 212_992}
            for split in ("validation", "test"):
                row[f"{split}.exact_match"] = run[f"{split}.exact_match"] - lost
                row[f"{split}.log_loss"] = run[f"{split}.log_loss"] + lost
            rows.append(row)
    return rows


def _merges(name: str, seed: int, noise: random.Random) -> list[dict[str, Any]]:
    rows = []
    for dtype, size in (("float32", 1e-6), ("bfloat16", 4e-3), ("float16", 3e-4)):
        moved = size * (1 + abs(noise.gauss(0, 0.3))) * (6 if name == "rank/r=32" else 1)
        passes = moved < 0.01
        row = {"configuration": name, "seed": seed, "dtype": dtype, "finite": True, "tokens": 4096}
        row |= {"max_logit_difference": 20 * moved, "mean_logit_difference": moved, "argmax_agreement": 1 - moved / 3}
        row |= {"log_loss_difference": moved, "log_loss_attached": 0.5, "log_loss_merged": 0.5 + moved}
        failures = [] if passes else [f"a log loss that moves by {moved:.3g}, more than 0.01 nats per token"]
        rows.append(row | {"passes": passes, "failures": failures})
    return rows
