"""What was found beside the held-out splits: a reference text's loss, answers to prompts, figures of a harness."""

from typing import Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.state import Attempt, State

Held = dict[str, Attempt]


def beside_figures(graph: Graph, name: str, replicate: Replicate, results: Held) -> dict[str, Any]:
    """Return `reference.log_loss`, `.before` and their difference `.change`; `lm_eval.<task>.<metric>` of each task."""
    found: dict[str, Any] = {}
    for what, key in replicate.extra.items():
        if key not in results or results[key].outcome != "done":
            continue
        figures = results[key].figures
        if what == "reference":
            before = results.get(graph.before[name]["reference"])
            found["reference.log_loss"] = figures["log_loss"]
            if before is not None:
                found["reference.before"] = before.figures["log_loss"]
                found["reference.change"] = figures["log_loss"] - before.figures["log_loss"]
        elif what.startswith("lm-eval/"):
            task = what.removeprefix("lm-eval/")
            found |= {f"lm_eval.{task}.{metric}": value for metric, value in figures.items()}
    return found


def answer_rows(graph: Graph, results: Held, state: State) -> list[dict[str, Any]]:
    """Return a row for each prompt and configuration: `configuration`, `prompt`, `untuned`, `tuned`.

    Tuned is the first seed's answer, and nothing for a configuration that is not trained.
    """
    found = []
    for configuration in graph.spec.configurations:
        replicates = graph.replicates[configuration.name]
        before = _answers(graph.before.get(configuration.name, {}).get("prompts"), results, state)
        key = replicates[0].extra.get("prompts") if replicates and replicates[0].train else None
        tuned = _answers(key, results, state)
        for row in before or tuned:
            answers = {"untuned": before.get(row, (None, None))[1], "tuned": tuned.get(row, (None, None))[1]}
            prompt = (before.get(row) or tuned[row])[0]
            found.append({"configuration": configuration.name, "number": row + 1, "prompt": prompt, **answers})
    return found


def _answers(key: str | None, results: Held, state: State) -> dict[int, tuple[str, str]]:
    """Return number of a prompt -> (prompt, answer)."""
    attempt = results.get(key or "")
    digest = attempt.outputs.get("predictions.jsonl.gz") if attempt is not None else None
    if digest is None or not state.objects.has(digest):
        return {}
    rows = state.objects.rows(digest)
    return {row["row"]: (row["reference"], row["answer"]) for row in rows}
