"""A made-up study of twenty configurations and three seeds, shaped as the results of a real one."""

import math
import random
from typing import Any

import pandas as pd
from adapters_fixture import with_adapters
from outcomes_fixture import outcomes

from lorafile.results import Results

SEEDS = (42, 1337, 2024)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
BASE = {
    "method": "lora",
    "lora.r": 8,
    "lora.target_modules": ATTENTION,
    "lora.layers_to_transform": None,
    "quantization": "none",
    "train.learning_rate": 2e-4,
}
RANK_GAIN = {1: -0.11, 2: -0.06, 4: -0.025, 8: 0.0, 16: 0.012, 32: 0.016}
RATE_GAIN = {2e-5: -0.19, 1e-4: -0.04, 2e-4: 0.0, 1e-3: 0.008, 5e-3: -0.21, 2e-6: 0.02}


def _points() -> list[tuple[str, str, dict[str, Any], list[str]]]:
    points = []
    for r in (1, 2, 4, 8, 16, 32):
        aliases = []
        if r == 8:
            aliases = [
                "rates/learning_rate=0.0002",
                "modules/target_modules=attention",
                "layers/all",
                "bits/quantization=none",
            ]
        points.append((f"rank/r={r}", "rank", {"lora.r": r}, aliases))
    rates = (2e-5, 1e-4, 1e-3, 5e-3)
    points += [(f"rates/learning_rate={rate:.12g}", "rates", {"train.learning_rate": rate}, []) for rate in rates]
    for name, modules in (("q_proj+v_proj", ["q_proj", "v_proj"]), ("mlp", MLP), ("all-linear", ATTENTION + MLP)):
        points.append((f"modules/target_modules={name}", "modules", {"lora.target_modules": modules}, []))
    for name, layers in (("0-7", list(range(8))), ("8-15", list(range(8, 16)))):
        points.append((f"layers/layers_to_transform={name}", "layers", {"lora.layers_to_transform": layers}, []))
    points += [(f"bits/quantization={name}", "bits", {"quantization": name}, []) for name in ("int8", "nf4")]
    nothing = dict.fromkeys(key for key in BASE if key.startswith("lora."))
    points.append(("baselines/method=none", "baselines", {"method": "none", "train.learning_rate": None} | nothing, []))
    points.append(("baselines/method=full", "baselines", {"method": "full", "train.learning_rate": 2e-6} | nothing, []))
    return points


def _quality(settings: dict[str, Any]) -> float:
    if settings["method"] == "none":
        return 0.214
    value = 0.771 + RATE_GAIN[settings["train.learning_rate"]] + RANK_GAIN.get(settings["lora.r"], 0.0)
    value += {2: -0.035, 3: 0.018, 7: 0.031}.get(len(settings["lora.target_modules"] or []), 0.0)
    value += {"int8": -0.002, "nf4": -0.019}.get(settings["quantization"], 0.0)
    layers = settings["lora.layers_to_transform"]
    return value - (0.06 if layers and layers[0] == 0 else 0.022 if layers else 0.0)


def _parameters(settings: dict[str, Any]) -> int:
    if settings["method"] != "lora":
        return 1_235_814_400 if settings["method"] == "full" else 0
    sizes = {"q_proj": 4096, "k_proj": 2560, "v_proj": 2560, "o_proj": 4096} | dict.fromkeys(MLP, 10240)
    layers = settings["lora.layers_to_transform"] or range(16)
    return int(settings["lora.r"] * len(layers) * sum(sizes[name] for name in settings["lora.target_modules"]))


def _run(name: str, sweep: str, settings: dict[str, Any], seed: int | None, noise: random.Random) -> dict[str, Any]:
    outcome, message = "done", ""
    if settings["train.learning_rate"] == 5e-3 and seed == 2024:
        outcome, message = "diverged", "the loss became NaN at step 61"
    if settings["lora.layers_to_transform"] == list(range(8, 16)) and seed == 2024:
        outcome = "missing"
    if settings["quantization"] == "int8" and seed == 1337:
        outcome, message = "failed", "CUDA error: an illegal memory access was encountered"
    row: dict[str, Any] = {"configuration": name, "sweep": sweep, "seed": seed, "outcome": outcome, "message": message}
    row["environment"] = row["predicted_in"] = 0 if outcome == "done" else None
    row["key"] = f"{noise.getrandbits(64):016x}"
    spread = 0.0 if seed is None else noise.gauss(0, 0.009 if settings["train.learning_rate"] != 5e-3 else 0.05)
    if outcome == "done":
        for split in ("validation", "test"):
            match = _quality(settings) + spread + noise.gauss(0, 0.004)
            row[f"{split}.exact_match"] = round(match * 500) / 500
            row[f"{split}.log_loss"] = 0.31 + 1.4 * (1 - match) ** 1.5 + noise.gauss(0, 0.002)
            row[f"{split}.examples"] = 500
        change = 0.0 if seed is None else 0.4 * (_quality(settings) - 0.4) + noise.gauss(0, 0.02)
        row |= {"reference.before": 2.31, "reference.log_loss": 2.31 + change, "reference.change": change}
        row |= {"lm_eval.arc_easy.acc": 0.61 - change / 8, "lm_eval.arc_easy.examples": 570}
    if settings["method"] != "none" and outcome != "missing":
        seconds = {"full": 412.0}.get(settings["method"], 121.0 + 1.1 * (settings["lora.r"] or 0))
        seconds *= {"int8": 1.7, "nf4": 1.35}.get(settings["quantization"], 1.0)
        row |= {"seconds": seconds + noise.gauss(0, 3), "steps": 250, "tokens": 910_000, "supervised_tokens": 118_000}
        row |= {"trainable_parameters": _parameters(settings), "total_parameters": 1_235_814_400}
        row |= {"final_loss": math.nan if outcome == "diverged" else 0.31 + (1 - _quality(settings)) * 1.4}
        row["adapter_bytes"] = _parameters(settings) * 4 if settings["method"] == "lora" else 2 * 1_235_814_400
    return row


def _profile(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    weights = {"int8": 1.50e9, "nf4": 1.03e9}.get(settings["quantization"], 2.47e9)
    train = weights + 1.9e9 + 16 * _parameters(settings) if settings["method"] == "lora" else 2.47e9 * 4 + 1.9e9
    slower = {"int8": 1.9, "nf4": 1.3}.get(settings["quantization"], 1.0)
    lora = settings["method"] == "lora"
    row = {"configuration": name, "device": "NVIDIA L4", "environment": 0, "load_seconds": 2.1}
    row |= {"load_allocated_bytes": weights, "load_reserved_bytes": weights * 1.02}
    row |= {"generate_allocated_bytes": weights * 1.1, "generate_reserved_bytes": weights * 1.2}
    row |= {"evaluate_allocated_bytes": weights * 1.2, "evaluate_reserved_bytes": weights * 1.3}
    if settings["method"] != "none":
        row |= {"train_allocated_bytes": train, "train_reserved_bytes": train * 1.12}
        row |= {"train_step_seconds": 0.48 * slower, "tokens_per_second": 7600 / slower}
        row |= {"supervised_tokens_per_second": 980 / slower}
    row |= {"first_token_seconds": 0.041 * slower * (1.35 if lora else 1)}
    row |= {"token_seconds": 0.019 * slower * (1.4 if lora else 1)}
    if lora and settings["quantization"] == "none":
        row |= {"merged_first_token_seconds": 0.0412, "merged_token_seconds": 0.0191}
    return row


def _curve(name: str, settings: dict[str, Any], run: dict[str, Any], noise: random.Random) -> list[dict[str, Any]]:
    if settings["method"] == "none" or run["outcome"] == "missing":
        return []
    end, speed = 0.31 + (1 - _quality(settings)) * 1.4, 8 + 40 * min(settings["train.learning_rate"] * 1000, 1)
    rows = []
    for step in range(1, 251):
        loss = end + (4.2 - end) * math.exp(-step / 250 * speed) + abs(noise.gauss(0, 0.09))
        if run["outcome"] == "diverged" and step > 40:
            loss = min(loss * math.exp((step - 40) / 4), 1e4) if step <= 60 else math.nan
        if run["outcome"] == "failed" and step > 120:
            break
        row = {"configuration": name, "seed": run["seed"], "step": step, "epoch": step / 125, "loss": loss}
        rows.append(row | {"learning_rate": settings["train.learning_rate"] * min(step / 15, (250 - step) / 235)})
    return rows


CARD = {
    "name": "builtin:facts",
    "path": "builtin:facts",
    "format": "builtin:facts",
    "licence": None,
    "source": None,
    "revision": None,
    "digests": {"train": "0f" * 32},
    "private": False,
    "max_length": 512,
    "splits": [
        {"split": "train", "examples": 2000, "tokens": 31_000, "duplicates": 3, "exact_duplicates": 1},
        {"split": "test", "examples": 200, "tokens": 3_100, "duplicates": 0, "exact_duplicates": 0},
    ],
    "leaks": [{"held": "test", "among": "train", "rows": 2, "exactly": 1, "of": 200}],
}


def _answer(name: str, number: int) -> dict[str, Any]:
    tuned = None if name == "baselines/method=none" else f"Paris, says {name}."
    return {"configuration": name, "number": number, "prompt": f"Capital {number}?", "untuned": "Rome?", "tuned": tuned}


def study(
    seeds: tuple[int, ...] = SEEDS, more: list[tuple[str, str, dict[str, Any], list[str]]] | None = None
) -> Results:
    """Return the results: one run diverged, one failed, one is missing.

    :param more: configurations beyond the twenty: name, sweep, what varies, aliases
    """
    noise = random.Random(7)
    configurations, runs, profiles, curves = [], [], [], []
    for name, sweep, varied, aliases in [*_points(), *(more or [])]:
        settings = BASE | varied
        wanted = [None] if settings["method"] == "none" else list(seeds)
        mine = [_run(name, sweep, settings, seed, noise) for seed in wanted]
        done = sum(run["outcome"] == "done" for run in mine)
        row = {"configuration": name, "sweep": sweep, "aliases": aliases, "trained": settings["method"] != "none"}
        row |= {"replicates": len(wanted), "done": done, "outcomes": f"done {done}"}
        configurations.append(row | settings)
        runs += mine
        profiles.append(_profile(name, settings))
        for run in mine:
            curves += _curve(name, settings, run, noise)
    found = Results(
        study="capitals",
        question="How does rank trade quality for memory, and which modules need an adapter?",
        title="Rank, placement and precision on the facts task",
        primary="exact_match",
        metrics=("exact_match", "log_loss"),
        seeds=seeds,
        configurations=pd.DataFrame(configurations),
        runs=pd.DataFrame(runs),
        profiles=pd.DataFrame(profiles),
        curves=pd.DataFrame(curves),
        environments=[{"device": "NVIDIA L4", "torch": "2.9.1", "transformers": "5.10.0", "peft": "0.21.0"}],
        data={"path": "builtin:facts", "format": "completion", "train": {"rows": 2000, "supervised_fraction": 0.13}},
        model={"path": "builtin:facts-llama", "architecture": "LlamaForCausalLM", "parameters": 1_235_814_400},
        answers=pd.DataFrame([_answer(row["configuration"], n) for n in (1, 2) for row in configurations]),
        reference="wikitext.txt",
        warnings=["This study is partial: 3 of 55 runs have no figures."],
        card=[CARD],
        outcomes=outcomes(runs),
    )
    return with_adapters(found, seeds)


def empty() -> Results:
    """Return the results of a study of which nothing has run."""
    nothing = pd.DataFrame()
    return Results("empty", "", "Empty", "log_loss", ("log_loss",), (1,), nothing, nothing, nothing, nothing)
