"""Answers at a prompt: a base, and what was trained on it, loaded once and asked the same."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from lorafile.engine.batching.batches import prompt_batch
from lorafile.engine.data.encode import chat_of, encode
from lorafile.engine.data.prompts import Turn, keeps_history, question_example
from lorafile.engine.inference.generation import Answer as Answer
from lorafile.engine.inference.generation import answer
from lorafile.engine.model.adapters import load_tuned, stored_adapter
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
class Responder:
    """A model that answers; `turns` is its memory of the conversation."""

    base: Base
    model: Any
    bare: bool = False  # the adapter is taken out while it speaks
    turns: list[Turn] = field(default_factory=list)


@dataclass
class ChatSession:
    """Responders that are asked the same questions, each with its own memory of the conversation."""

    responders: dict[str, Responder]
    data: dict[str, Any]
    task: dict[str, Any]
    count: int = 0  # questions so far, from which samples are seeded

    def ask(self, question: str, columns: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Return the answer of each responder that is asked; the others take the first answer into their memory.

        :raises NodeError: when a column of the prompt has no value
        """
        answers = {name: self._say(self.responders[name], question, columns) for name in names}
        for name, responder in self.responders.items():
            if keeps_history(self.data):
                responder.turns.append(Turn(question, answers.get(name) or next(iter(answers.values()))))
        self.count += 1
        return answers

    def text(self, question: str, columns: dict[str, Any]) -> str:
        """Return what a model reads of a first question."""
        responder = next(iter(self.responders.values()))
        return question_example(self.data, question, columns, [], chat_of(responder.base.tokenizer, self.data)).prompt

    def reset(self) -> None:
        """Forget what was said."""
        for responder in self.responders.values():
            responder.turns.clear()

    def _say(self, responder: Responder, question: str, columns: dict[str, Any]) -> str:
        tokenizer = responder.base.tokenizer
        example = question_example(self.data, question, columns, responder.turns, chat_of(tokenizer, self.data))
        (encoded,) = encode(tokenizer, [example], True)
        ids = torch.tensor(encoded.input_ids[: encoded.prompt], device=responder.base.device)
        if not ids.numel():
            raise NodeError("There is nothing to answer: the question has no tokens.")
        with torch.inference_mode(), responder.model.disable_adapter() if responder.bare else contextlib.nullcontext():
            (said,) = answer(responder.base, responder.model, prompt_batch(ids), self.task, [self.count])
        return said.text.strip()


@contextlib.contextmanager
def open_session(
    bare: Source, tuned: Source | None, data: dict[str, Any], task: dict[str, Any]
) -> Iterator[ChatSession]:
    """Load a base and what was trained on it; an adapter shares the base, all weights need a second model."""
    base = load_base(bare.settings, bare.paths, proven=False)
    if tuned is None:
        yield ChatSession({"base": Responder(base, base.model.eval())}, data, task)
    elif tuned.files is not None and "adapter_config.json" in tuned.files:
        with stored_adapter(base, tuned.files) as model:
            yield ChatSession({"base": Responder(base, model, bare=True), "tuned": Responder(base, model)}, data, task)
    else:
        whole = load_tuned(tuned.settings, tuned.paths, tuned.files, proven=False)
        responders = {"base": Responder(base, base.model.eval()), "tuned": Responder(whole, whole.model.eval())}
        yield ChatSession(responders, data, task)
