"""`train`, `predict` and `score` nodes of a configuration under one seed."""

from typing import Any

from lorafile.graph import Graph, Replicate
from lorafile.metrics import METRICS
from lorafile.specs import Configuration


def add_replicate(graph: Graph, configuration: Configuration, seed: int | None) -> Replicate:
    """Add what one replicate trains, predicts and scores; return its keys."""
    spec, name = graph.spec, configuration.name
    sections, splits = graph.sections[name], graph.splits[name]
    base = name if seed is None else f"{name}/seed={seed}"
    about: dict[str, Any] = {"configuration": name, "seed": seed}
    train = None
    if seed is not None:
        train = graph.add("train", f"{base}:train", {**sections, "seed": seed}, {"train": splits["train"]}, **about)
    reads = {"adapter": train} if train else {}
    bare = {"model": sections["model"], "quantization": sections["quantization"]}
    outputs = dict.fromkeys(METRICS[metric].needs for metric in spec.tables.evaluate.metrics)
    predict: dict[tuple[str, str], str] = {}
    score: dict[str, str] = {}
    for split in ("validation", "test"):
        if split not in splits:
            continue
        for output in outputs:
            task: dict[str, Any] = {"output": output}
            if output == "generation":
                task |= {"max_new_tokens": spec.tables.evaluate.max_new_tokens, "do_sample": False}
            address = f"{base}:predict/{split}/{output}"
            inputs = {"data": splits[split], **reads}
            predict[split, output] = graph.add("predict", address, {**bare, "task": task}, inputs, split=split, **about)
        wanted = {metric: METRICS[metric].version for metric in sorted(spec.tables.evaluate.metrics)}
        inputs = {output: predict[split, output] for output in outputs}
        score[split] = graph.add("score", f"{base}:score/{split}", {"metrics": wanted}, inputs, split=split, **about)
    return Replicate(seed, train, predict, score)
