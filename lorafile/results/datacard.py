"""The data card: what a study's data are, how long their examples, and whether a held-out one is in train, too."""

import re
from collections import Counter
from itertools import chain, combinations, islice
from typing import Any

from lorafile.errors import StateError
from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import identity
from lorafile.results.results import grouped
from lorafile.results.runs import Attempts, done, stored_rows
from lorafile.specs import Configuration
from lorafile.specs.catalogue import catalogue
from lorafile.state import Attempt, State

_HALF = 8  # bytes of each digest in digests.bin
_SPLITS = ("train", "validation", "test")
_SENTENCE, _PASSAGE = 40, 200  # characters from which on a sentence counts, and what prompts share is a passage
_MANY = 0.2  # the share of prompts that share passages, from which on it is said
_READ = 5000  # prompts of a split that are looked at
Digests = list[tuple[bytes, bytes]]


def cards(graph: Graph, results: Attempts, state: State) -> list[dict[str, Any]]:
    """Return a card for each data set of a study, as far as its examples are prepared.

    Each has `name`, `path`, `format`, `licence`, `source`, `revision`, `private`, `splits` (see `_split`) and `leaks`:
    for each pair of splits how many `rows` of the one (`held`) are in the other (`among`), and how many `exactly`.
    """
    by_data = grouped((identity(configuration.data), configuration) for configuration in graph.spec.configurations)
    return [_card(graph, configurations, results, state) for configurations in by_data.values()]


def _card(graph: Graph, configurations: list[Configuration], results: Attempts, state: State) -> dict[str, Any]:
    """Return the card of one data set; a split is shown as the first configuration that reads it reads it."""
    plain = [configuration for configuration in configurations if not configuration.shots]
    keys: dict[str, str] = {}
    for configuration in plain or configurations:
        keys = {**graph.splits[configuration.name], **keys}
    form = graph.nodes[next(iter(keys.values()))].settings["data"]["format"]
    prepared = {split: attempt for split in _SPLITS if (attempt := done(results, keys.get(split)))}
    digests = {split: stored_digests(attempt, state) for split, attempt in prepared.items()}
    return {
        **about(graph, configurations[0]),
        "format": form,
        "splits": [_split(split, attempt.figures, digests[split]) for split, attempt in prepared.items()],
        "leaks": leaks(digests) if plain else [],
        "passages": _passages(graph, configurations[0], prepared.get("test"), state),
    }


def _passages(graph: Graph, configuration: Configuration, test: Attempt | None, state: State) -> tuple[int, int] | None:
    """Return (test prompts that share a passage with another one, of how many); None where clusters are declared."""
    if test is None or graph.clusters.get(configuration.name):
        return None
    try:
        prompts = [str(row.get("prompt", "")) for row in islice(stored_rows(test, "examples.jsonl.gz", state), _READ)]
    except StateError:
        return None  # a damaged file is named where its examples are shown; nothing is known of passages
    return shared_passages(prompts), len(prompts)


def shared_passages(prompts: list[str]) -> int:
    """Return how many prompts share a passage (sentences of 200 characters) with others, but not with most."""
    sentences = [{part for part in re.split(r"(?<=[.!?])\s+|\n+", text) if len(part) >= _SENTENCE} for text in prompts]
    counts = Counter(chain(*sentences))
    common = {part for part, count in counts.items() if 1 < count <= len(prompts) / 2}
    return sum(sum(map(len, parts & common)) >= _PASSAGE for parts in sentences)


def passage_sentences(card: dict[str, Any]) -> list[str]:
    """Say where test examples are about the same passages, and nothing says that they belong together."""
    shared, of = card["passages"] or (0, 0)
    if not shared or shared < _MANY * of:
        return []
    return [
        f"{shared} of {of} test prompts of {card['path']} share a passage with another prompt. Examples about the same "
        "passage are not independent, so intervals are too narrow and verdicts overconfident. Name the column that "
        "groups them (data.cluster)."
    ]


def about(graph: Graph, configuration: Configuration) -> dict[str, Any]:
    """Return whose a configuration's data are: name, path, licence, source, revision, digests, privacy."""
    table = configuration.data
    lock = graph.lock.data[identity(table)]
    origin = catalogue()[table.like]["about"] if table.like else {}
    return {
        "name": identity(table),
        "path": table.path,
        "licence": origin.get("licence"),
        "source": origin.get("source"),
        "revision": lock.revision,
        "digests": lock.digests,
        "private": table.private,
        "max_length": table.max_length,
    }


def _split(split: str, figures: dict[str, Any], digests: Digests) -> dict[str, Any]:
    names = ["examples", "tokens", "supervised_fraction", "median_tokens", "p95_tokens", "longest", "too_long"]
    names += ["answers_lost", "empty_answers"]
    exact, normal = duplicates(digests)
    return {
        "split": split,
        **{name: figures[name] for name in names if name in figures},
        "duplicates": normal,
        "exact_duplicates": exact,
    }


def stored_digests(attempt: Attempt, state: State) -> Digests:
    """Return the two digests of every prepared example; none where their file has gone."""
    digest = attempt.outputs.get("digests.bin")
    if digest is None or not state.objects.has(digest):
        return []
    content = state.objects.read(digest)
    return [
        (content[at : at + _HALF], content[at + _HALF : at + 2 * _HALF]) for at in range(0, len(content), 2 * _HALF)
    ]


def duplicates(digests: Digests) -> tuple[int, int]:
    """Return how many rows repeat an earlier one: exactly, and but for case, white space and punctuation."""
    exact, normal = ({pair[place] for pair in digests} for place in (0, 1))
    return len(digests) - len(exact), len(digests) - len(normal)


def leaks(digests: dict[str, Digests]) -> list[dict[str, Any]]:
    """Return for each two splits how many rows of the one that is held out are in the other, too."""
    pairs = combinations([split for split in _SPLITS if split in digests], 2)
    return [_leak(held, digests[held], among, digests[among]) for among, held in pairs]


def _leak(held: str, rows: Digests, among: str, others: Digests) -> dict[str, Any]:
    exact, normal = ({pair[place] for pair in others} for place in (0, 1))
    shared, exactly = sum(pair[1] in normal for pair in rows), sum(pair[0] in exact for pair in rows)
    return {"held": held, "among": among, "rows": shared, "exactly": exactly, "of": len(rows)}


def leak_sentences(card: dict[str, Any]) -> list[str]:
    """Say which held-out examples are in another split."""
    return [
        f"{leak['rows']} of {leak['of']} {leak['held']} examples of {card['path']} are also in {leak['among']} "
        f"({_how_many(leak)}): results on them are optimistic for models that have seen them."
        for leak in card["leaks"]
        if leak["rows"]
    ]


def _how_many(leak: dict[str, Any]) -> str:
    if leak["exactly"] == leak["rows"]:
        return "verbatim"
    return f"{leak['exactly']} verbatim, the others except for case, spacing and punctuation"


def leak_warnings(graph: Graph, state: State) -> list[str]:
    """Return what there is to say of leaks between a study's splits, from what state holds of them now."""
    history = state.latest(graph.nodes)
    finished = {key: attempt for key, attempts in history.items() for attempt in attempts if attempt.outcome == "done"}
    return [line for card in cards(graph, finished, state) for line in leak_sentences(card)]
