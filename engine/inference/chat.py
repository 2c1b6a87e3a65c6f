"""Answers at a prompt: a base, and what was trained on it, loaded once and asked the same."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from lorafile.engine.batching.batches import Batch
from lorafile.engine.data.encode import chat_of, encode
from lorafile.engine.data.question import Turn, asked_example, keeps_history
from lorafile.engine.inference.generation import answer
from lorafile.engine.model.adapters import as_directory, stored_adapter
from lorafile.engine.model.base import Base, load_base
from lorafile.errors import NodeError


@dataclass(frozen=True)
class Source:
    """A model to be loaded.

    :ivar settings: its sections `model` and `quantization`; `paths`: where it is on this machine
    :ivar files: file name -> path of what was trained: an adapter, or all weights; None for the bare base
    """

    settings: dict[str, Any]
    paths: dict[str, Any]
    files: dict[str, str] | None = None


@dataclass
class Voice:
    """One that answers; `turns` is what it was asked and said so far."""

    base: Base
    model: Any
    bare: bool = False  # the adapter is taken out while it speaks
    turns: list[Turn] = field(default_factory=list)


@dataclass
class Talk:
    """Voices that are asked the same, each with its own memory of a conversation."""

    voices: dict[str, Voice]
    data: dict[str, Any]
    task: dict[str, Any]
    asked: int = 0

    def ask(self, question: str, columns: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Return the answer of each voice that is asked; the others take the first answer into their memory.

        :raises NodeError: when the prompt has columns that nobody filled
        """
        found = {name: self._say(self.voices[name], question, columns) for name in names}
        for name, voice in self.voices.items():
            if keeps_history(self.data):
                voice.turns.append(Turn(question, found.get(name) or next(iter(found.values()))))
        self.asked += 1
        return found

    def text(self, question: str, columns: dict[str, Any]) -> str:
        """Return what a model reads of a first question."""
        voice = next(iter(self.voices.values()))
        return asked_example(self.data, question, columns, [], chat_of(voice.base.tokenizer)).prompt

    def reset(self) -> None:
        """Forget what was said."""
        for voice in self.voices.values():
            voice.turns.clear()

    def _say(self, voice: Voice, question: str, columns: dict[str, Any]) -> str:
        tokenizer = voice.base.tokenizer
        example = asked_example(self.data, question, columns, voice.turns, chat_of(tokenizer))
        (encoded,) = encode(tokenizer, [example], True)
        ids = torch.tensor([encoded.input_ids[: encoded.prompt]], device=voice.base.device)
        if not ids.numel():
            raise NodeError("There is nothing to answer: the question has no token.")
        batch = Batch([0], ids, torch.ones_like(ids), torch.zeros_like(ids, dtype=torch.bool))
        with torch.inference_mode(), voice.model.disable_adapter() if voice.bare else contextlib.nullcontext():
            (text,) = answer(voice.base, voice.model, batch, self.task, [self.asked])
        return text.strip()


@contextlib.contextmanager
def opened(bare: Source, tuned: Source | None, data: dict[str, Any], task: dict[str, Any]) -> Iterator[Talk]:
    """Load a base and what was trained on it; an adapter shares the base, all weights need a second model."""
    base = load_base(bare.settings, bare.paths, proven=False)
    if tuned is None:
        yield Talk({"base": Voice(base, base.model.eval())}, data, task)
    elif tuned.files is not None and "adapter_config.json" in tuned.files:
        with stored_adapter(base, tuned.files) as model:
            yield Talk({"base": Voice(base, model, bare=True), "tuned": Voice(base, model)}, data, task)
    else:
        with as_directory(tuned.files) if tuned.files is not None else contextlib.nullcontext() as directory:
            whole = load_base(tuned.settings, tuned.paths, weights=directory, proven=False)
        voices = {"base": Voice(base, base.model.eval()), "tuned": Voice(whole, whole.model.eval())}
        yield Talk(voices, data, task)
