"""`prepare`: the rows of one split to token ids, with what is supervised."""

import random
from pathlib import Path
from typing import Any

from lorafile.engine.lines import write_lines
from lorafile.engine.request import Done, Request
from lorafile.engine.rows import read_rows
from lorafile.engine.templates import Example, check_columns, renderer
from lorafile.engine.tokens import Encoded, pack
from lorafile.errors import NodeError


def prepare(request: Request, out: Path) -> Done:
    """Tokenize one split.

    Prompt and completion are tokenized as one text where that leaves the prompt's own tokens as they are; otherwise
    each for itself, because at inference the prompt stands alone.

    :raises NodeError: for an empty split, a missing column, a too long example, no supervised token
    """
    data = request.settings["data"]
    tokenizer = load_tokenizer(request.paths["model"], request.paths.get("trust_remote_code", False))
    rows = split_rows(data["rows"], [Path(file) for file in request.paths["data"]])
    _check_columns(rows, data, request)
    render = renderer(data, lambda messages, opens: _chat(tokenizer, messages, opens))
    kept: list[Encoded] = []
    lines, cut, unknown = [], 0, 0
    for number, row in rows:
        example = render(row)
        ids, supervised, prompt = encode(tokenizer, example, data["completion_only_loss"])
        unknown += ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
        if len(ids) > data["max_length"]:
            cut += 1
            if data["too_long"] == "drop":
                continue
            if data["too_long"] == "error":
                raise NodeError(_too_long(number, len(ids), data, request))
        limit = data["max_length"]
        kept.append(Encoded(ids[:limit], supervised[:limit], min(prompt, limit)))
        lines.append({"row": number, "prompt": example.prompt, "reference": example.reference})
    figures = _figures(kept, cut, unknown)
    _check_supervised(figures, rows, request)
    pack(kept).save(out / "tokens.safetensors")
    write_lines(out / "examples.jsonl.gz", lines)
    return Done(figures=figures, files=["tokens.safetensors", "examples.jsonl.gz"])


def load_tokenizer(path: str, trust_remote_code: bool = False) -> Any:
    """Return a model's tokenizer, with a padding token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise NodeError(f"model.path: the tokenizer in {path} cannot be loaded: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def split_rows(rule: dict[str, Any], files: list[Path]) -> list[tuple[int, dict[str, Any]]]:
    """Return (row number, row) of one split: a slice of the file's rows, in file order or in a seeded order."""
    rows = list(enumerate(read_rows(files)))
    if rule["seed"] is not None:
        random.Random(rule["seed"]).shuffle(rows)
    return rows[rule["start"] : rule["stop"]]


def encode(tokenizer: Any, example: Example, completion_only: bool) -> tuple[list[int], list[int], int]:
    """Return an example's token ids, closed by the end token; 1 for each that is supervised; its prompt's length."""
    ends = tokenizer.eos_token_id

    def ids_of(text: str, special: bool = not example.special) -> list[int]:
        return list(tokenizer(text, add_special_tokens=special)["input_ids"]) if text else []

    prompt, whole = ids_of(example.prompt), ids_of(example.prompt + example.completion)
    if not example.special and prompt and prompt[-1] == ends:
        prompt = prompt[:-1]  # a tokenizer that closes every text by itself
    if whole[: len(prompt)] != prompt:
        whole = prompt + ids_of(example.completion, special=False)
    if ends is not None and ends not in whole[len(prompt) :]:
        whole.append(ends)
    first = max(len(prompt) if completion_only else 0, 1)  # nothing predicts the very first token
    return whole, [int(position >= first) for position in range(len(whole))], len(prompt)


def _chat(tokenizer: Any, messages: list[Any], opens: bool) -> str:
    if tokenizer.chat_template is None:
        raise NodeError(
            "data.format: the model's tokenizer has no chat template; use another format or a data.template."
        )
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens)
    return text


def _check_columns(rows: list[tuple[int, dict[str, Any]]], data: dict[str, Any], request: Request) -> None:
    if not rows:
        raise NodeError(f"data.path: {request.paths['data_name']}: the {request.paths['split']} split is empty.")
    check_columns(data, list(rows[0][1]), request.paths["data_name"])


def _too_long(number: int, length: int, data: dict[str, Any], request: Request) -> str:
    return (
        f"data.max_length: row {number} of the {request.paths['split']} split ({request.paths['data_name']}) has "
        f"{length} tokens, more than {data['max_length']}. Raise data.max_length, or set data.too_long "
        'to "drop" or "truncate".'
    )


def _figures(kept: list[Encoded], cut: int, unknown: int) -> dict[str, float]:
    tokens = sum(len(example.input_ids) for example in kept)
    supervised = sum(sum(example.supervised) for example in kept)
    return {
        "examples": len(kept),
        "tokens": tokens,
        "supervised_tokens": supervised,
        "supervised_fraction": supervised / tokens if tokens else 0.0,
        "too_long": cut,
        "unknown_tokens": unknown,
        "longest": max((len(example.input_ids) for example in kept), default=0),
    }


def _check_supervised(figures: dict[str, float], rows: list[Any], request: Request) -> None:
    split, name = request.paths["split"], request.paths["data_name"]
    limit = request.settings["data"]["max_length"]
    if not figures["examples"]:
        raise NodeError(
            f"data.max_length: all {len(rows)} examples of the {split} split ({name}) are longer than {limit} tokens."
        )
    if not figures["supervised_tokens"]:
        raise NodeError(f"data: no token of the {split} split ({name}) is supervised; are the completions empty?")
