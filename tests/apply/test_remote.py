"""A worker on another machine, over a simulated transport: what it says, what comes with it, and how it ends."""

import time
from pathlib import Path

import pytest

from lorafile.apply.executors import remote, wire
from lorafile.apply.executors.content import ContentIndex
from lorafile.apply.executors.remote import Gone, RemoteWorker
from lorafile.apply.executors.wire import encode
from lorafile.engine.request import Request, Result
from lorafile.engine.worker.channel import Command, NodeEnd, NodeStart, Status, Work


class Wire:
    """A transport: `said` is what the agent says next; `there` the files that it has."""

    def __init__(self) -> None:
        self.said: list[wire.Letter] | None = []
        self.gone = ""
        self.there: dict[str, bytes] = {}
        self.sent: list[wire.Letter] = []
        self.released: list[str] = []
        self.closed = False

    def send(self, text: str) -> None:
        self.sent.append(wire.decode(text))

    def receive(self) -> list[str] | None:
        if self.gone:
            raise Gone(self.gone)
        said, self.said = self.said, None
        return None if said is None else [encode(letter) for letter in said]

    def fetch(self, digest: str, size: int, target: Path) -> bool:
        if digest in self.there:
            target.write_bytes(self.there[digest])
        return digest in self.there

    def supply(self, digests: list[str]) -> None:
        self.supplied = digests

    def release(self, key: str) -> None:
        self.released.append(key)

    def log(self) -> str:
        return "the agent's"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def transport() -> Wire:
    return Wire()


@pytest.fixture
def worker(transport: Wire, tmp_path: Path) -> RemoteWorker:
    worker = RemoteWorker("n1", transport, ContentIndex(), tmp_path / "staging", 300.0)
    request = Request("k", "train", "a:train", {}, {"checkpoint": str(tmp_path / "running" / "k")})
    worker.send(Work([[request]]))
    return worker


def test_an_end_waits_for_its_files_and_what_follows_waits_with_it(worker: RemoteWorker, transport: Wire) -> None:
    end = NodeEnd("k", Result(files=["curve"]))
    transport.said = [NodeStart("k"), wire.Delivered(end, {"curve": ("d", 3)}), Status.WORK_DONE]
    assert worker.events() == [NodeStart("k")]
    assert worker.events() == []
    transport.there["d"] = b"abc"
    (ended, done) = worker.events()
    assert isinstance(ended, NodeEnd)
    assert (Path(ended.directory) / "curve").read_bytes() == b"abc"
    assert done is Status.WORK_DONE
    worker.send(Command.RELEASE)
    assert transport.released == ["k"]
    assert not Path(ended.directory).exists()


def test_files_that_are_not_stored_yet_outlive_the_worker(worker: RemoteWorker, transport: Wire) -> None:
    transport.there["d"] = b"abc"
    transport.said = [wire.Delivered(NodeEnd("k", Result(files=["curve"])), {"curve": ("d", 3)}), wire.Leaving("left")]
    (ended,) = worker.events()
    assert worker.lost() is not None
    worker.close()
    assert isinstance(ended, NodeEnd)
    assert (Path(ended.directory) / "curve").exists()


def test_a_checkpoint_is_put_where_the_next_attempt_looks_for_it(
    worker: RemoteWorker, transport: Wire, tmp_path: Path
) -> None:
    run = tmp_path / "running" / "k"
    run.mkdir(parents=True)
    (run / "step-1.safetensors").write_text("old")
    transport.there |= {"m": b"manifest", "s": b"tensors"}
    files = {"checkpoint.json": ("m", 8), "step-2.safetensors": ("s", 7)}
    transport.said = [NodeStart("k"), wire.Checkpointed("k", files)]
    worker.events()
    assert {file.name: file.read_bytes() for file in run.iterdir()} == {
        "checkpoint.json": b"manifest",
        "step-2.safetensors": b"tensors",
    }
    assert worker.progressed == {"k"}


def test_an_agent_that_is_gone_is_a_machine_s_loss(worker: RemoteWorker, transport: Wire) -> None:
    transport.gone = "is gone with its Slurm job 7 (NODE_FAIL)"
    assert worker.events() == []
    loss = worker.lost()
    assert loss is not None
    assert (loss.why, loss.by_its_work) == (transport.gone, False)
    assert not worker.renew()
    assert worker.log() == "the agent's"


def test_a_worker_that_dies_of_its_work_leaves_an_agent_that_starts_another(
    worker: RemoteWorker, transport: Wire
) -> None:
    transport.said = [wire.WorkerDied("was killed by SIGSEGV", False, "its log")]
    worker.events()
    loss = worker.lost()
    assert loss is not None and loss.by_its_work
    assert worker.log() == "its log"
    assert worker.renew()
    assert worker.lost() is None
    assert transport.sent[-1] is wire.Order.RENEW


def test_two_deadlines(worker: RemoteWorker, transport: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    worker.events()  # a sign of life
    monkeypatch.setattr(remote.time, "monotonic", lambda: now + 29)
    assert worker.lost() is None
    monkeypatch.setattr(remote.time, "monotonic", lambda: now + 31)
    assert worker.lost() == remote.Loss("(n1) did not respond for 30 s", by_its_work=False)


def test_before_its_first_sign_of_life_a_worker_has_more_time_or_all(transport: Wire, tmp_path: Path) -> None:
    for start, lost in ((300.0, True), (None, False)):
        worker = RemoteWorker("n1", transport, ContentIndex(), tmp_path, start)
        worker._heard_at -= 299
        assert worker.lost() is None
        worker._heard_at -= 9999
        assert (worker.lost() is not None) == lost
        assert not worker.has_begun


def test_a_file_whose_name_leads_elsewhere_is_refused(worker: RemoteWorker, transport: Wire) -> None:
    transport.said = [wire.Delivered(NodeEnd("k", Result(files=["../x"])), {"../x": ("d", 3)})]
    assert worker.events() == []
    loss = worker.lost()
    assert loss is not None and "'../x'" in loss.why


def test_that_it_is_idle_after_work_was_taken_back_says_nothing_of_later_work(
    worker: RemoteWorker, transport: Wire
) -> None:
    worker.retract()
    assert transport.sent[-1] is Command.FINISH
    worker.send(Work([[Request("later", "train", "b:train", {}, {})]]))
    transport.said = [Status.IDLE, NodeStart("later")]
    assert worker.events() == [NodeStart("later")]
    transport.said = [Status.IDLE]
    assert worker.events() == [Status.IDLE]
