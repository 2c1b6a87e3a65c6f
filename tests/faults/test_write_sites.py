"""Every place where something is written: the disk is full, broken or read-only there, or the process ends."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from faults.shim import FAILS, Shim, Site, sites
from faults.study import OPTIONS, Bench, Counts, assert_opens, assert_sound, assert_told

KILLS = ("before", "after", "middle")
SAMPLE = 2  # faults of each kind where some are taken
SAMPLED = {
    *(("apply scores", act) for act in (*FAILS, "SIGKILL")),
    *(("import", "EROFS"), ("gc", "EIO"), ("rm", "EACCES"), ("repair", "SIGKILL")),
}


def without_scores(bench: Bench) -> None:
    code, said = bench.lora("state", "rm", "*:score/*", "--yes")
    assert code == 0, said


def nothing(bench: Bench) -> None:
    shutil.rmtree(bench.state)


def to_import(bench: Bench) -> None:
    code, said = bench.lora("state", "export", "--bundle", str(bench.spec.with_name("all.tar")))
    assert code == 0, said
    nothing(bench)


def damaged(bench: Bench) -> None:
    index = bench.state / "state.db"
    index.write_bytes(index.read_bytes()[:30_000])
    next(iter((bench.state / "objects").glob("*/*"))).write_bytes(b"")


@dataclass(frozen=True)
class Writer:
    """A command that writes, and the state that it finds.

    :ivar only: beginnings of the names that no other command writes faster
    :ivar slow: it needs seconds, for it trains
    :ivar keeps: the state is sound before, and what is finished is to stay
    """

    words: tuple[str, ...]
    prepare: Callable[[Bench], None]
    only: tuple[str, ...] = ("",)
    keeps: bool = True
    slow: bool = False


WRITERS = {
    "apply": Writer(("apply", "study.toml", *OPTIONS), nothing, ("staging", "running"), slow=True),
    "apply scores": Writer(("apply", "study.toml", *OPTIONS), without_scores),
    "import": Writer(("state", "import", "all.tar"), to_import),
    "repair": Writer(("state", "verify", "--repair"), damaged, keeps=False),
    "gc": Writer(("state", "gc", "--yes"), without_scores),
    "rm": Writer(("state", "rm", "*:score/*", "--yes"), lambda bench: None, keeps=False),
}


@dataclass(frozen=True)
class Case:
    """What happens at which time at which site."""

    act: str
    site: Site
    nth: int

    def __str__(self) -> str:
        return f"{self.act} at {self.site}, time {self.nth}"


def cases(found: Counter[Site], acts: tuple[str, ...]) -> Iterator[Case]:
    """Yield the first, a middle and the last time at each site, for each act that can happen there."""
    for site in sorted(found, key=str):
        for act in acts:
            if site.op in FAILS.get(act, {"write"} if act == "middle" else {site.op}):
                times = {1, (found[site] + 1) // 2, found[site]}
                yield from (Case(act, site, nth) for nth in sorted(times))


def chosen_cases(
    found: Counter[Site], acts: tuple[str, ...], writer: Writer, full: bool, rng: random.Random
) -> list[Case]:
    """Return all cases of a command, or of one that takes seconds one for each site; of these a sample."""
    mine = [case for case in cases(found, acts) if case.site.name.startswith(writer.only)]
    if writer.slow:
        mine = [rng.choice([case for case in mine if case.site == site]) for site in {case.site: 0 for case in mine}]
    return mine if full else rng.sample(mine, min(SAMPLE, len(mine)))


def disturb(bench: Bench, shim: Shim, writer: Writer, case: Case) -> None:
    """Let a command meet one fault, and check everything."""
    before = bench.finished() if writer.keeps else {}
    code, said = bench.disturbed(shim.fault(bench.state, case.act, case.site, case.nth), *writer.words)
    if case.act not in KILLS and code != 0:
        assert_told(code, said)
        assert str(bench.state) in said, f"no path: {said}"
    if writer.keeps:
        assert_opens(bench, before)
    code, said = bench.lora(*writer.words)
    assert code == 0, said
    assert_sound(bench, bench.finished())


@pytest.mark.sampled(14)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("acts", [*((act,) for act in FAILS), KILLS], ids=[*FAILS, "SIGKILL"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_fault_at_a_write_is_told_and_loses_nothing(
    done: Bench, shim: Shim, name: str, acts: tuple[str, ...], full: bool, rng: random.Random, counts: Counts
) -> None:
    told = "SIGKILL" if acts == KILLS else acts[0]
    if not full and (name, told) not in SAMPLED:
        pytest.skip("a part of --full")
    writer = WRITERS[name]
    writer.prepare(done)
    template = done.spec.with_name("template")
    if done.state.exists():
        shutil.copytree(done.state, template)
    log = shim.log
    code, said = done.disturbed(shim.environment(done.state, log=log), *writer.words)
    assert code == 0, said
    chosen = chosen_cases(sites(log), acts, writer, full, rng)
    wrong: dict[str, str] = {}
    met = 0
    for case in chosen:
        shutil.rmtree(done.state)
        if template.exists():
            shutil.copytree(template, done.state)
        try:
            disturb(done, shim, writer, case)
        except AssertionError as error:
            wrong[str(case)] = str(error)[-600:]
        met += shim.fired
    counts(f"faults: {told} at a write", sites_and_times=len(chosen), met=met, wrong=len(wrong))
    assert not wrong, "\n".join(f"{case}: {error}" for case, error in wrong.items())
