"""What waits for a worker: order, readiness, packs, and what comes back from a worker that died."""

from lorafile.apply.executors.base import Group
from lorafile.apply.executors.queue import Queue
from lorafile.engine.request import PackSizes


def replicates(count: int, pack: str = "a", **about: frozenset[str]) -> list[Group]:
    return [Group((f"{pack}{n}:train", f"{pack}{n}:predict"), "base", pack=pack, **about) for n in range(count)]


def test_a_replicate_waits_for_the_examples_that_it_reads_and_for_no_others() -> None:
    reads_one, reads_two = Group(("a",), "base", frozenset({"one"})), Group(("b",), "base", frozenset({"two"}))
    queue = Queue([Group(("one",)), Group(("two",)), reads_one, reads_two])
    assert [queue.take(set(), 1) for _ in range(3)] == [[Group(("one",))], [Group(("two",))], []]
    queue.mark_ended("two")
    assert queue.take(set(), 1) == [reads_two]
    assert queue.take(set(), 1) == []
    queue.mark_ended("one")
    assert queue.take(set(), 1) == [reads_one]


def test_a_pack_is_of_one_class_and_in_order() -> None:
    a, b = replicates(3, "a"), replicates(2, "b")
    queue = Queue([a[0], b[0], a[1], b[1], a[2]], pack=2)
    assert queue.take(set(), 1) == a[:2]
    assert queue.take(set(), 1) == b
    assert queue.take(set(), 1) == a[2:]


def test_groups_that_cannot_be_packed_go_alone_and_off_packs_none() -> None:
    alone = replicates(2, "")
    assert Queue(alone, pack=8).take(set(), 1) == alone[:1]
    assert Queue(replicates(2), pack=1).take(set(), 1) == replicates(2)[:1]


def test_every_worker_gets_its_share_of_a_class() -> None:
    queue = Queue(replicates(6), pack=8)
    assert [len(queue.take(set(), free)) for free in (2, 1)] == [3, 3]


def test_an_unmeasured_class_goes_out_to_be_measured_and_the_measured_width_holds_from_then_on() -> None:
    groups = replicates(40)
    queue = Queue(groups, pack=0)
    first = queue.take(set(), 1)
    assert first == groups[:16]
    assert queue.pack_sizes(first[0]) is None
    assert queue.set_pack_sizes(first[0], PackSizes(4, 2, "measured"))
    assert not queue.set_pack_sizes(first[0], PackSizes(8, 8, "measured later, by another worker"))
    queue.give_back(first[4:])
    assert queue.take(set(), 1) == groups[4:8]
    assert queue.pack_sizes(groups[9]) == PackSizes(4, 2, "measured")


def test_what_a_worker_died_of_comes_back_once_and_never_in_a_pack() -> None:
    groups = replicates(4)
    queue = Queue(groups, pack=4)
    queue.handle_dead_worker(queue.take(set(), 1), {"a0:train", "a1:train"})
    assert [queue.take(set(), 1) for _ in range(3)] == [groups[:1], groups[1:2], groups[2:]]
    queue.handle_dead_worker(groups[:1], {"a0:train"})
    assert queue.take(set(), 1) == []


def test_nobody_waits_for_a_group_that_is_given_up() -> None:
    examples, reader = Group(("one",)), Group(("a",), "base", frozenset({"one"}))
    queue = Queue([examples, reader])
    for _ in range(2):
        queue.handle_dead_worker(queue.take(set(), 1), {"one"})
    assert queue.take(set(), 1) == [reader]
