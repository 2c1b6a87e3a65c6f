"""`prepare`: the rows of one split to token ids, with what is supervised."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from lorafile.engine.batching.tokens import pack
from lorafile.engine.data.blocks import best_fit
from lorafile.engine.data.columns import check_columns
from lorafile.engine.data.encode import Encoded, chat_of, ids_of, is_encoder_at, load_tokenizer
from lorafile.engine.data.example import cluster_of
from lorafile.engine.data.examples import Limits, Numbered, Prepared, examples, shown_rows, split_rows
from lorafile.engine.data.files import data_file
from lorafile.engine.data.prompts import prompt_example
from lorafile.engine.model.base import Bases
from lorafile.engine.request import Report, Request, Result
from lorafile.errors import NodeError
from lorafile.files.jsonl import write_lines


def prepare(request: Request, out: Path, _bases: Bases, _report: Report) -> Result:
    """Tokenize one split.

    Leaves `tokens.safetensors`; `examples.jsonl.gz`, a line for each example: `row`, `prompt`, `reference`, `bytes`
    (UTF-8, of the supervised text), and what its metrics need (`choices`, `references`, …); and `digests.bin`, for each
    example eight bytes of its text and eight of its letters and digits, by which duplicates are found.

    :raises NodeError: for an empty split, a missing column, a too long example, no supervised token
    """
    data = request.settings["data"]
    if "clusters" in data:
        return _prepare_clusters(data, request, out)
    tokenizer = load_tokenizer(request.paths["model"], request.paths.get("trust_remote_code", False))
    _set_end_token(tokenizer, data)
    if "prompts" in data:
        return _prepare_prompts(data, tokenizer, out)
    files = [data_file(file) for file in request.paths["data"]]
    rows = split_rows(data["rows"], files, data.get("sample_by", "auto"))
    if not rows:
        column = data["rows"].get("cluster")
        why = (
            f', because rows with the same "{column}" stay together and there are too few groups (data.cluster)'
            if column
            else ""
        )
        raise NodeError(f"data.path: {request.paths['data_name']}: the {request.paths['split']} split is empty{why}.")
    check_columns(data, list(rows[0][1]), request.paths["data_name"])
    shown = shown_rows(data, [data_file(file) for file in request.paths.get("shots", [])])
    encoder = data.get("task_type") == "SEQ_CLS" and is_encoder_at(request.paths["model"])
    kept, lines, digests, counts = _fitted(tokenizer, examples(tokenizer, data, rows, shown, encoder), encoder, request)
    figures = _figures(kept) | counts
    _check_supervised(figures, rows, any(line["bytes"] for line in lines), encoder, request)
    figures |= {"reasoning": lines[0]["reasoning"]} if lines and "reasoning" in lines[0] else {}
    if "labels" in data:
        figures["choices"] = [name for _, name in data["labels"]]
    blocks = best_fit([len(example.input_ids) for example in kept], data["max_length"]) if data.get("packing") else None
    figures |= _block_figures(kept, blocks) if blocks else {}
    pack(kept, blocks).save(out / "tokens.safetensors")
    write_lines(out / "examples.jsonl.gz", lines)
    (out / "digests.bin").write_bytes(digests)
    return Result(figures=figures, files=["tokens.safetensors", "examples.jsonl.gz", "digests.bin"])


def _fitted(
    tokenizer: Any, prepared: Iterable[Prepared], encoder: bool, request: Request
) -> tuple[list[Encoded], list[dict[str, Any]], bytes, Counter[str]]:
    """Return the tokens of the examples that go in, a line and two digests for each, and what is counted of all.

    :raises NodeError: when one is longer than it may be
    """
    data = request.settings["data"]
    limits = Limits.of(data, request.paths["model"], tokenizer, encoder)
    answers = not encoder and data["format"] != "text"
    kept: list[Encoded] = []
    lines, digests, counts = [], bytearray(), Counter(too_long=0, answers_lost=0, empty_answers=0, unknown_tokens=0)
    for one in prepared:
        ids, example = one.encoded.input_ids, one.example
        counts["unknown_tokens"] += ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
        too_long = limits.excess(one) > 0
        counts["too_long"] += too_long
        if too_long and limits.too_long == "error":
            raise NodeError(_too_long(one.row, len(ids) - one.shots, limits.own, request))
        encoded = limits.fit(tokenizer, one, encoder)
        if encoded is None:
            counts["answers_lost"] += limits.too_long == "truncate"
            continue
        counts["empty_answers"] += one.is_empty and answers
        kept.append(encoded)
        size = _supervised_bytes(tokenizer, encoded) if too_long else one.size
        line = {"row": one.row, "prompt": example.prompt, "reference": example.reference, "bytes": size}
        lines.append(line | example.about)
        digests += one.exact + one.normal
    return kept, lines, bytes(digests), counts


def _set_end_token(tokenizer: Any, data: dict[str, Any]) -> None:
    """Let a tokenizer without an end token close answers with the model's own.

    :raises NodeError: when there is none: a model would never learn where an answer ends
    """
    if tokenizer.eos_token_id is None and "end_token" in data:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(data["end_token"])
    if tokenizer.eos_token_id is None and data.get("task_type") != "SEQ_CLS" and data["format"] != "text":
        raise NodeError(
            "model.path: neither the tokenizer nor the model's config.json or generation_config.json defines an end "
            "token, so the model cannot learn where an answer ends. Set eos_token in tokenizer_config.json."
        )


def _supervised_bytes(tokenizer: Any, encoded: Encoded) -> int:
    """Return the bytes of the supervised text of an example that was cut."""
    ids = [token for token, mark in zip(encoded.input_ids, encoded.supervised, strict=True) if mark]
    return len(tokenizer.decode(ids, skip_special_tokens=True).encode())


def _too_long(number: int, length: int, limit: int, request: Request) -> str:
    own = request.settings["data"]["max_length"]
    raised = "Raise data.max_length, or set" if limit == own else "The model reads no more: set"
    return (
        f"data.max_length: row {number} of the {request.paths['split']} split ({request.paths['data_name']}) has "
        f'{length} tokens, more than {limit}. {raised} data.too_long to "drop" or "truncate".'
    )


def _figures(kept: list[Encoded]) -> dict[str, Any]:
    lengths = sorted(len(example.input_ids) for example in kept)
    tokens = sum(lengths)
    supervised = sum(sum(example.supervised) for example in kept)
    return {
        "examples": len(kept),
        "tokens": tokens,
        "supervised_tokens": supervised,
        "supervised_fraction": supervised / tokens if tokens else 0.0,
        "longest": max(lengths, default=0),
        "median_tokens": median(lengths) if lengths else 0,
        "p95_tokens": lengths[-(-len(lengths) * 95 // 100) - 1] if lengths else 0,  # nearest rank
        **answer_lengths(kept),
    }


def answer_lengths(kept: list[Encoded]) -> dict[str, int | float]:
    """Return median, 95th percentile and most of the tokens after each prompt, with the one that ends an answer.

    It is what `evaluate.max_new_tokens` has to have room for; nothing where there are no answers: of raw text, and of
    what a classification head reads.
    """
    lengths = sorted(len(example.input_ids) - example.prompt for example in kept)
    if not lengths or not any(example.prompt for example in kept) or not lengths[-1]:
        return {}
    nearest_rank = lengths[-(-len(lengths) * 95 // 100) - 1]
    return {"median_answer": median(lengths), "p95_answer": nearest_rank, "longest_answer": lengths[-1]}


def _block_figures(kept: list[Encoded], blocks: list[int]) -> dict[str, int]:
    sizes = [0] * (max(blocks) + 1)
    for block, example in zip(blocks, kept, strict=True):
        sizes[block] += len(example.input_ids)
    return {"blocks": len(sizes), "longest": max(sizes)}


def _check_supervised(
    figures: dict[str, Any], rows: list[Numbered], text: bool, encoder: bool, request: Request
) -> None:
    """Refuse a split of which nothing would be learned.

    :param text: whether any text is supervised, and not only where each answer ends
    :param encoder: classes are learned, and no text
    """
    split, name = request.paths["split"], request.paths["data_name"]
    limit = request.settings["data"]["max_length"]
    if not figures["examples"]:
        what = "lose their whole answer at" if figures["answers_lost"] else "are longer than"
        raise NodeError(
            f"data.max_length: all {len(rows)} examples of the {split} split ({name}) {what} {limit} tokens."
        )
    if not encoder and not (figures["supervised_tokens"] and text):
        raise NodeError(f"data: no token of the {split} split ({name}) is supervised; are the completions empty?")


def _prepare_clusters(data: dict[str, Any], request: Request, out: Path) -> Result:
    """Tell which rows of a split belong together: `clusters.jsonl.gz`, `row` and `cluster` of each, a number."""
    files = [data_file(file) for file in request.paths["data"]]
    rows = split_rows(data["rows"], files, data.get("sample_by", "auto"))
    names: dict[str, int] = {}
    lines = [
        {"row": number, "cluster": names.setdefault(cluster_of(row, data["clusters"], number), len(names))}
        for number, row in rows
    ]
    write_lines(out / "clusters.jsonl.gz", lines)
    return Result(figures={"examples": len(lines), "clusters": len(names)}, files=["clusters.jsonl.gz"])


def _prepare_prompts(data: dict[str, Any], tokenizer: Any, out: Path) -> Result:
    """Tokenize prompts that the spec holds; `reference` holds each as the user wrote it, to be shown with its answer.

    :raises NodeError: when one cannot be put into the format, or leaves no room
    """
    kept, lines = [], []
    chat = chat_of(tokenizer, data)
    for number, row in enumerate(data["prompts"]):
        try:
            example = prompt_example(row, data, chat)
        except NodeError as error:
            raise NodeError(f"evaluate.prompts: prompt {number + 1}: {error}") from error
        (ids,) = ids_of(tokenizer, [(example.prompt, example.special)])
        if ids and not example.special and ids[-1] == tokenizer.eos_token_id:
            ids = ids[:-1]  # a tokenizer that closes every text by itself
        if not 0 < len(ids) <= data["max_length"]:
            raise NodeError(
                f"evaluate.prompts: prompt {number + 1} has {len(ids)} tokens; data.max_length = {data['max_length']}."
            )
        kept.append(Encoded(ids, [0] * len(ids), len(ids)))
        shown = row if isinstance(row, str) else example.prompt
        lines.append({"row": number, "prompt": example.prompt, "reference": shown})
    pack(kept).save(out / "tokens.safetensors")
    write_lines(out / "examples.jsonl.gz", lines)
    lengths = [len(example.input_ids) for example in kept]
    figures = {"examples": len(kept), "tokens": sum(lengths), "longest": max(lengths)}
    return Result(figures=figures, files=["tokens.safetensors", "examples.jsonl.gz"])
