"""The loop with workers that are simulated: what happens when a machine goes away, and who is believed."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lorafile.apply.executors.base import ExecutorCallbacks, Group, Loss, Phase, WorkerHandle
from lorafile.apply.executors.loop import PoolExecutor
from lorafile.apply.executors.queue import MOST_LOSSES
from lorafile.engine.request import Request, Result
from lorafile.engine.worker.channel import Command, Event, Message, NodeEnd, NodeStart, Status, Work
from lorafile.errors import LoraError

AWAY = Loss("gave no sign of life for 30 s", by_its_work=False)
Script = Callable[["Simulated", list[str]], "tuple[list[Message], Loss | None]"]


class Simulated(WorkerHandle):
    """A worker that does what a script says with the keys that it gets."""

    def __init__(self, number: int, script: Script, journal: list[str]) -> None:
        super().__init__()
        self.number, self.script, self.journal = number, script, journal
        self.said: list[Message] = []
        self.loss: Loss | None = None

    def send(self, message: Work | Command) -> None:
        if isinstance(message, Work):
            keys = [request.key for requests in message.replicates for request in requests]
            self.journal.append(f"{self.number} gets {' '.join(keys)}")
            said, self.loss = self.script(self, keys)
            self.said += said

    def events(self) -> list[Message]:
        said, self.said = self.said, []
        return said

    def lost(self) -> Loss | None:
        return self.loss

    def log(self) -> str:
        return f"log of {self.number}"

    def close(self) -> None:
        self.journal.append(f"{self.number} closed")


class Pool:
    keeps_workers = True

    def __init__(self, script: Script, most: int = 1) -> None:
        self.script, self.most, self.journal, self.numbers = script, most, [], itertools.count(1)  # type: ignore[var-annotated]

    def limit(self, phase: Phase) -> int:
        return self.most

    def start(self, phase: Phase, workers: Sequence[WorkerHandle], urgency: Callable[[], int]) -> Simulated:
        return Simulated(next(self.numbers), self.script, self.journal)

    def adopt(self) -> list[tuple[WorkerHandle, list[Work]]]:
        return []

    def wait(self, workers: Sequence[WorkerHandle], seconds: float) -> None:
        pass


def ends(keys: list[str], outcome: str = "done") -> list[Message]:
    events: list[Any] = [event for key in keys for event in (NodeStart(key), NodeEnd(key, Result(outcome)))]
    return [*events, Status.WORK_DONE, Status.IDLE]


def run(pool: Pool, *groups: Group) -> list[NodeEnd]:
    """Return how nodes ended, in order."""
    seen: list[Event] = []

    def requests(group: Group) -> list[Request]:
        done = {event.key for event in seen if isinstance(event, NodeEnd) and event.result.outcome == "done"}
        return [Request(key, "train", key, {}, {}) for key in group.keys if key not in done]

    PoolExecutor(pool, 1).run(list(groups), ExecutorCallbacks(requests, seen.extend, lambda: 0))
    return [event for event in seen if isinstance(event, NodeEnd)]


def test_a_machine_that_goes_away_counts_against_no_work_until_the_sixth_time() -> None:
    pool = Pool(lambda worker, keys: ([NodeStart(keys[0])], AWAY))
    ended = run(pool, Group(("a", "b")))
    assert [event.result.outcome for event in ended] == ["interrupted"] * (MOST_LOSSES + 1)
    assert {event.result.message for event in ended} == {"The worker process gave no sign of life for 30 s."}
    assert ended[0].log == "log of 1"


def test_with_progress_a_machine_may_go_away_as_often_as_it_likes() -> None:
    tries = itertools.count()

    def script(worker: Simulated, keys: list[str]) -> "tuple[list[Message], Loss | None]":
        if next(tries) >= 3 * MOST_LOSSES:
            return ends(keys), None
        worker.progressed.add(keys[0])  # a checkpoint has come
        return [NodeStart(keys[0])], AWAY

    ended = run(Pool(script), Group(("a",)))
    assert [event.result.outcome for event in ended] == ["interrupted"] * (3 * MOST_LOSSES) + ["done"]


def test_what_never_begins_is_given_up_with_a_sentence() -> None:
    (end,) = run(Pool(lambda worker, keys: ([], AWAY)), Group(("a",)))
    expected = "Its workers were lost 6 times before it started; the last one gave no sign of life for 30 s."
    assert (end.result.outcome, end.result.message) == ("interrupted", expected)


def test_a_lost_worker_is_closed_before_its_groups_go_out_again() -> None:
    def script(worker: Simulated, keys: list[str]) -> "tuple[list[Message], Loss | None]":
        return ([NodeStart(keys[0])], AWAY) if worker.number == 1 else (ends(keys), None)

    pool = Pool(script)
    run(pool, Group(("a",)))
    assert pool.journal == ["1 gets a", "1 closed", "2 gets a"]


def test_what_is_said_of_a_finished_node_is_dropped() -> None:
    said = [NodeStart("a"), NodeEnd("a", Result("done")), NodeEnd("a", Result("failed")), NodeStart("a")]
    ended = run(Pool(lambda worker, keys: ([*said, Status.WORK_DONE, Status.IDLE], None)), Group(("a",)))
    assert [event.result.outcome for event in ended] == ["done"]


def test_a_run_that_stopped_with_its_worker_is_finished_by_another_and_what_is_of_no_group_is_dropped() -> None:
    """As at a SIGTERM to the worker alone: it says that it was interrupted, and ends."""

    def script(worker: Simulated, keys: list[str]) -> "tuple[list[Message], Loss | None]":
        if worker.number == 1:
            stray = NodeEnd("elsewhere", Result("done"))
            return [NodeStart("a"), NodeEnd("a", Result("interrupted")), stray], Loss("was killed by SIGTERM")
        return ends(keys), None

    ended = run(Pool(script), Group(("a",)))
    assert [(event.key, event.result.outcome) for event in ended] == [("a", "interrupted"), ("a", "done")]


def test_a_worker_that_dies_of_its_work_is_tried_once_more() -> None:
    ended = run(Pool(lambda worker, keys: ([NodeStart(keys[0])], Loss("was killed by SIGSEGV"))), Group(("a",)))
    assert [event.result.message for event in ended] == ["The worker process was killed by SIGSEGV."] * 2


def test_a_worker_that_cannot_begin_ends_the_apply_with_the_last_line_of_its_log() -> None:
    with pytest.raises(LoraError, match=r"exit code 1 before it could start\. The last line of its log: log of 1"):
        run(Pool(lambda worker, keys: ([], Loss("ended with exit code 1", exited=True))), Group(("a",)))


def test_a_failed_node_carries_the_worker_s_log_and_a_finished_one_does_not() -> None:
    failed, done = Group(("a",)), Group(("b",))
    script = lambda worker, keys: (ends(keys, "failed" if keys == ["a"] else "done"), None)  # noqa: E731
    assert [event.log for event in run(Pool(script), failed, done)] == ["log of 1", ""]


def test_a_stop_does_not_wait_for_a_job_that_has_not_begun() -> None:
    class Waiting(Simulated):
        has_begun = False

    pool = Pool(lambda worker, keys: ([], None))
    pool.start = lambda *_: Waiting(next(pool.numbers), pool.script, pool.journal)  # type: ignore[method-assign]
    turns = itertools.count()
    urgency = lambda: 0 if next(turns) < 4 else 1  # noqa: E731
    requests = lambda group: [Request(key, "train", key, {}, {}) for key in group.keys]  # noqa: E731
    PoolExecutor(pool, 1).run([Group(("a",))], ExecutorCallbacks(requests, lambda _: None, urgency))
    assert pool.journal == ["1 gets a", "1 closed"]


def test_a_worker_of_an_earlier_apply_goes_on_with_what_is_still_to_be_done() -> None:
    pool = Pool(lambda worker, keys: (ends(keys), None))
    left, useless = (Simulated(number, pool.script, pool.journal) for number in (8, 9))
    left.said = ends(["a"])
    works = [Work([[Request(key, "train", key, {}, {})]]) for key in ("a", "gone")]
    pool.adopt = lambda: [(left, works[:1]), (useless, works[1:])]  # type: ignore[method-assign]
    ended = run(pool, Group(("a",)), Group(("b",)))
    assert {event.key for event in ended} == {"a", "b"}
    assert [entry for entry in pool.journal if " a" in entry] == [], "nobody else gets what it has in hand"
    assert "9 closed" in pool.journal


def test_what_is_measured_gets_a_fresh_process_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def renew(worker: Simulated) -> bool:
        worker.journal.append(f"{worker.number} renewed")
        return True

    pool = Pool(lambda worker, keys: (ends(keys), None))
    monkeypatch.setattr(Simulated, "renew", renew)
    run(pool, Group(("a",)), Group(("p",), alone=True), Group(("q",), alone=True))
    assert pool.journal == ["1 gets a", "1 renewed", "1 gets p", "1 renewed", "1 gets q"]


def test_a_worker_that_cannot_be_renewed_is_closed_and_another_measures() -> None:
    pool = Pool(lambda worker, keys: (ends(keys), None))
    run(pool, Group(("p",), alone=True), Group(("q",), alone=True))
    assert pool.journal == ["1 gets p", "1 closed", "2 gets q"]


def test_an_idle_worker_gets_the_work_of_one_that_has_not_begun() -> None:
    class Late(Simulated):
        has_begun = False

        def retract(self) -> None:
            self.journal.append(f"{self.number} gives back")

    pool = Pool(lambda worker, keys: (ends(keys) if worker.has_begun else [], None), most=2)
    pool.start = lambda *_: (Simulated if next(numbers) else Late)(next(pool.numbers), pool.script, pool.journal)  # type: ignore[method-assign]
    numbers = itertools.cycle([0, 1])
    ended = run(pool, Group(("a",)), Group(("b",)), Group(("c",)))
    assert pool.journal == ["1 gets a", "2 gets b", "2 gets c", "1 gives back", "2 gets a"]
    assert {event.key for event in ended} == {"a", "b", "c"}


def test_many_workers_that_speak_at_once_are_recorded_in_parts_and_none_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lorafile.apply.executors.loop._MOST_EVENTS", 10)
    pool, turns = Pool(lambda worker, keys: (ends(keys), None), most=40), []
    keys = [f"k{number}" for number in range(100)]

    def requests(group: Group) -> list[Request]:
        return [Request(key, "train", key, {}, {}) for key in group.keys]

    PoolExecutor(pool, 1).run([Group((key,)) for key in keys], ExecutorCallbacks(requests, turns.append, lambda: 0))
    assert max(map(len, turns)) <= 10 + 1  # what one worker says stays together
    ended = [event.key for events in turns for event in events if isinstance(event, NodeEnd)]
    assert sorted(ended) == sorted(keys)
