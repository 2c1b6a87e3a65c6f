"""What the page shows beyond figures: keys, settings and samples of a made-up study, and a study of 1,000 runs."""

import hashlib
from dataclasses import replace
from itertools import islice, product
from typing import Any

from results_fixture import ATTENTION, MLP, RANK_GAIN, RATE_GAIN, study

from lorafile.results import Results, RunDetail, RunKey, Sample

PLACES = [["q_proj"], ["k_proj"], ["v_proj"], ["o_proj"], ["q_proj", "v_proj"], ["q_proj", "k_proj"]]
PLACES += [ATTENTION, MLP, ATTENTION + MLP]


def key_of(*parts: object) -> str:
    """Return a made-up key of a node: 64 hexadecimal digits, always the same for the same parts."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def told(results: Results) -> Results:
    """Return the results with what stands behind each run."""
    runs: list[RunKey] = []
    for name, seed in zip(results.runs["configuration"], results.runs["seed"], strict=True):
        runs.append((str(name), None if seed != seed or seed is None else int(seed)))
    model = {"dtype": "bfloat16", "weights": {"model.safetensors": "ab" * 32}}
    details = {
        run: RunDetail(
            {node: key_of(*run, node) for node in ("train", "predict/test/likelihood", "score/test")},
            {"model": model, "adapter": {"method": "lora", "r": 8}, "seed": run[1]},
        )
        for run in runs
    }
    example = {"row": 0, "prompt": "The capital of France is", "reference": "Paris", "answer": "Paris, <b>surely</b>"}
    return replace(
        results,
        details=details,
        samples={run: Sample("test", [example | {"log_likelihood": -0.5, "tokens": 2}]) for run in runs},
    )


def thousand() -> Results:
    """Return a study of 1,000 runs: the small one's 55, and a grid of rank, rate and placement under three seeds."""
    grid = product(RANK_GAIN, RATE_GAIN, PLACES)
    points: list[tuple[str, str, dict[str, Any], list[str]]] = []
    for rank, rate, modules in islice(grid, 315):
        name = f"grid/r={rank},learning_rate={rate:g},target_modules={'+'.join(modules)}"
        varied = {"lora.r": rank, "train.learning_rate": rate, "lora.target_modules": modules}
        points.append((name, "grid", varied, []))
    return told(study(more=points))
