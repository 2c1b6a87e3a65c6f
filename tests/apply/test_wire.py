"""Messages as JSON: each comes back as it was, another protocol is refused in a sentence, and nothing is unpickled."""

import json
import math
import pickle
from pathlib import Path

import pytest

from lorafile.apply.executors import wire
from lorafile.engine.request import PackSizes, Request, Result
from lorafile.engine.worker.channel import (
    Command,
    NodeEnd,
    NodeProgress,
    NodeStart,
    PackMeasured,
    Status,
    Work,
)

REQUEST = Request("k", "train", "a/seed=1:train", {"seed": 1, "lr": 0.1 + 0.2}, {"model": {"files": {}}}, pack="p")
END = NodeEnd("k", Result("failed", "why", {"loss": 1e-7}, ["curve.jsonl.gz"]), "", "2026-11-30", 1.5, {"device": "A"})
LETTERS = [
    Work([[REQUEST]], None),
    Work([[REQUEST], []], PackSizes(2, 4, "measured")),
    NodeStart("k"),
    NodeProgress("k", {"step": 3, "loss": 2.5}),
    PackMeasured("k", PackSizes(1, 2)),
    wire.Delivered(END, {"curve.jsonl.gz": ("ab", 12)}),
    wire.Checkpointed("k", {"checkpoint.json": ("cd", 3)}),
    wire.Hello("n1", 7),
    wire.Missing(["ab", "cd"]),
    wire.WorkerDied("was killed by SIGKILL", False, "log"),
    wire.Leaving("was stopped by SIGTERM"),
    wire.LogTail("…"),
    *Status,
    *Command,
    *wire.Order,
]


@pytest.mark.parametrize("letter", LETTERS, ids=lambda letter: str(letter)[:30])
def test_a_message_comes_back_as_it_was(letter: wire.Letter) -> None:
    text = wire.encode(letter)
    assert "\n" not in text
    assert wire.decode(text) == letter


def test_a_loss_that_is_no_number_comes_back() -> None:
    back = wire.decode(wire.encode(NodeProgress("k", {"loss": math.nan})))
    assert isinstance(back, NodeProgress)
    assert math.isnan(back.progress["loss"])


def test_another_protocol_is_refused_in_a_sentence_that_names_both_versions() -> None:
    content = json.loads(wire.encode(Status.IDLE)) | {"protocol": 2, "lorafile": "9.9"}
    with pytest.raises(wire.WireError, match=r"protocol 2 \(lorafile 9\.9\).*Install the same version of lorafile"):
        wire.decode(json.dumps(content))


@pytest.mark.parametrize("body", ["{", "[]", '{"protocol": 1}', "null", '"x"'])
def test_what_is_no_message_is_refused(body: str) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(body)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("NodeStart", {"key": 1}), ("Status", "GONE"), ("Path", "x"), ("Work", {}), ("NodeEnd", {"key": "k"})],
)
def test_a_message_of_another_form_is_refused(kind: str, body: object) -> None:
    content = {"protocol": wire.PROTOCOL, "lorafile": "1", "kind": kind, "body": body}
    with pytest.raises(wire.WireError, match="cannot read a message of type"):
        wire.decode(json.dumps(content))


def test_a_pickle_is_no_message(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> object:
            return mark.touch, ()

    with pytest.raises(wire.WireError):
        wire.decode(pickle.dumps(Evil()).decode("latin-1"))
    assert not mark.exists()
