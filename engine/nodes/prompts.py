"""`prepare` of prompts that the spec holds: each goes through the data's own format, and has no answer yet."""

from pathlib import Path
from typing import Any

from lorafile.engine.batching.tokens import pack
from lorafile.engine.data.encode import Encoded, chat_of, ids_of
from lorafile.engine.data.example import Example
from lorafile.engine.data.templates import renderer
from lorafile.engine.request import Result
from lorafile.errors import NodeError
from lorafile.files.jsonl import write_lines

# The field of a format that a bare text stands for, and the one that would hold its answer.
_FIELDS = {
    "alpaca": ("instruction", "output"),
    "builtin:facts": ("question", "answer"),
    "completion": ("prompt", "completion"),
    "question": ("question", "answer"),
}
_GUANACO = "### Human: {}\n### Assistant:"


def prepare_prompts(data: dict[str, Any], tokenizer: Any, out: Path) -> Result:
    """Tokenize the prompts; `reference` holds each as the user wrote it, for whoever shows the answers.

    :raises NodeError: when one cannot be put into the format, or leaves no room
    """
    kept, lines = [], []
    for number, row in enumerate(data["prompts"]):
        try:
            example = _asked(row, data, tokenizer)
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
    tokens = sum(len(one.input_ids) for one in kept)
    figures = {"examples": len(kept), "tokens": tokens, "longest": max(len(one.input_ids) for one in kept)}
    return Result(figures=figures, files=["tokens.safetensors", "examples.jsonl.gz"])


def _asked(row: str | dict[str, Any], data: dict[str, Any], tokenizer: Any) -> Example:
    form = data["format"]
    if form == "chat":
        given = [{"role": "user", "content": row}] if isinstance(row, str) else row.get("messages")
        if not isinstance(given, list) or not given:
            raise NodeError("a row should hold `messages`, a list of {role, content}.")
        return Example(chat_of(tokenizer).text(given, True), "", "", special=True)
    if isinstance(row, str):
        if form == "guanaco":
            return Example(_GUANACO.format(row), "", "")
        if form not in _FIELDS or data["template"]:
            return Example(row, "", "")
        row = {_FIELDS[form][0]: row}
    answers = {"output": "", "answer": "", "completion": "", "answers": [], "label": _first_label(data)}
    return renderer(data, chat_of(tokenizer))({**answers, **row})


def _first_label(data: dict[str, Any]) -> str:
    """Return any class: a prompt does not depend on which one its answer would be."""
    return str(data["labels"][0][0]) if data.get("labels") else ""
