"""What is written outside the state, disturbed at each write: whole, old or new, told, and never believed torn."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from faults.conftest import taken
from faults.shim import FAILS, Shim, Site, sites
from faults.study import OPTIONS, Bench, Counts, assert_told
from faults.test_write_sites import KILLS, Case, cases, without_scores

RUN = "alpha/r=2,lora_alpha=2"
CLAIM = f'\n[[claim]]\ntext = "It is a model"\none = "{RUN}"\nat_most = 1e9\n'
SAMPLE, CUTS = 1, 4
_TO_STAY = ("EACCES", "EROFS")  # that nothing can be taken away lasts, too
SAMPLED = {("plan", "EIO"), ("export again", "SIGKILL")}


def nothing(bench: Bench) -> None:
    """Prepare nothing."""


def without_lock(bench: Bench) -> None:
    bench.spec.with_suffix(".lock").unlink(missing_ok=True)
    without_scores(bench)


@dataclass(frozen=True)
class Writer:
    """A command that writes next to the spec.

    :ivar again: files of an earlier time are there; they have a line more
    :ivar together: names of files that are all of one time, or the first of them is not there
    :ivar some: it takes seconds: one time at each site
    """

    words: tuple[str, ...]
    again: bool = True
    prepare: Callable[[Bench], None] = nothing
    together: tuple[str, ...] = ()
    some: bool = False


_EXPORTED = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/README.md")
WRITERS = {
    "init": Writer(("init", "first.toml", "--force")),
    "lock": Writer(("lock", "study.toml")),
    "plan": Writer(("plan", "study.toml", "--out", "plan.json")),
    "apply": Writer(("apply", "study.toml", *OPTIONS), again=False, prepare=without_lock, some=True),
    "report": Writer(("report", "study.toml"), some=True),
    "tables": Writer(("state", "export", "--out", "tables")),
    "parquet": Writer(("state", "export", "--out", "tables", "--format", "parquet"), again=False),
    "bundle": Writer(("state", "export", "--bundle", "all.tar")),
    "export": Writer(("export", RUN, "adapter"), again=False, together=_EXPORTED),
    "export again": Writer(("export", RUN, "adapter", "--force"), together=_EXPORTED),
}


@pytest.fixture
def beside(undisturbed: Bench, tmp_path: Path) -> Bench:
    """The study with all of it finished, and a claim; its state is elsewhere."""
    bench = taken(undisturbed, tmp_path / "study")
    bench.state.rename(tmp_path / "state")
    bench.spec.write_text(bench.spec.read_text(encoding="utf-8") + CLAIM, encoding="utf-8")
    for name in ("guard", "seconds"):
        (bench.spec.parent / name).unlink()
    return replace(bench, state=tmp_path / "state")


def content(bench: Bench) -> dict[str, bytes]:
    """Return path -> bytes of all that is next to the spec."""
    folder = bench.spec.parent
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def put(bench: Bench, files: dict[str, bytes]) -> None:
    """Let there be these files, and no others."""
    folder = bench.spec.parent
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for name, wanted in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(wanted)


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def old_and_new(bench: Bench, writer: Writer) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return what is next to the spec before a command and after it; before it is there."""
    writer.prepare(bench)
    before = content(bench)
    code, said = bench.lora(*writer.words)
    assert code == 0, said
    old, new = before, content(bench)
    if writer.again:
        made = {"study.lock"} if writer.words[0] == "lock" else new.keys() - before.keys()
        old = {**before, **{name: new[name] + b"\n" for name in made}}
        put(bench, old)
        code, said = bench.lora(*writer.words)  # what a report says of a claim depends on whether it is the first
        assert code == 0, said
        new = content(bench)
    put(bench, old)
    writer.prepare(bench)
    return old, new


def chosen_cases(
    found: Counter[Site], acts: tuple[str, ...], writer: Writer, full: bool, rng: random.Random
) -> list[Case]:
    mine = list(cases(found, acts))
    if writer.some:
        mine = [rng.choice([case for case in mine if case.site == site]) for site in {case.site: 0 for case in mine}]
    return mine if full else rng.sample(mine, SAMPLE)


def assert_whole(
    bench: Bench, writer: Writer, old: dict[str, bytes], new: dict[str, bytes], said: str, may_leave: bool
) -> None:
    """Check that every file is whole, of one time or the other, and that nothing else is there."""
    found = content(bench)
    strange = {name for name in found if name not in new}
    assert all("/." in f"/{name}" for name in strange) if may_leave else not strange, f"left: {strange}"
    torn = {name for name in found.keys() - strange if found[name] not in (old.get(name), new[name])}
    assert not torn, f"torn: {torn}"
    gone = {name for name in old.keys() - found.keys() if not may_leave or old[name] not in found.values()}
    assert not gone, f"gone: {gone}: {said}"
    if writer.together and writer.together[0] in found:
        mine = {name: found.get(name) for name in writer.together}
        assert mine in [{name: time.get(name) for name in writer.together} for time in (old, new)], "of two times"


def disturb(
    bench: Bench, shim: Shim, writer: Writer, case: Case, times: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    """Let a command meet one fault, and run it again."""
    old, new = times
    folder, killed = bench.spec.parent, case.act in KILLS
    code, said = bench.disturbed(shim.fault(folder, case.act, case.site, case.nth), *writer.words)
    if not killed and code != 0:
        assert_told(code, said)
        assert any(name.split("/")[0] in said for name in new.keys() - {"study.toml"}), f"no path: {said}"
        assert old.keys() <= content(bench).keys() or ".before-" in said, f"not told where it is: {said}"
    assert_whole(bench, writer, old, new, said, may_leave=killed or case.act in _TO_STAY)
    if content(bench) != new:
        code, said = bench.lora(*writer.words)
        assert code == 0, said
    assert not differing(content(bench), new)


@pytest.mark.sampled(18)
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("acts", [*((act,) for act in FAILS), KILLS], ids=[*FAILS, "SIGKILL"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_fault_at_a_write_beside_the_spec_leaves_whole_files(
    beside: Bench, shim: Shim, name: str, acts: tuple[str, ...], full: bool, rng: random.Random, counts: Counts
) -> None:
    told = "SIGKILL" if acts == KILLS else acts[0]
    if not full and (name, told) not in SAMPLED:
        pytest.skip("a part of --full")
    writer = WRITERS[name]
    old, new = old_and_new(beside, writer)
    log = shim.log
    code, said = beside.disturbed(shim.environment(beside.spec.parent, log=log), *writer.words)
    assert code == 0, said
    assert not differing(content(beside), new)
    chosen = chosen_cases(sites(log), acts, writer, full, rng)
    wrong, met = dict[str, str](), 0
    for case in chosen:
        put(beside, old)
        writer.prepare(beside)
        try:
            disturb(beside, shim, writer, case, (old, new))
        except AssertionError as error:
            wrong[str(case)] = str(error)[-600:]
        met += shim.fired
    counts(f"faults: {told} next to the spec", sites_and_times=len(chosen), met=met, wrong=len(wrong))
    assert not wrong, "\n".join(f"{case}: {error}" for case, error in wrong.items())


def test_a_torn_file_beside_the_spec_is_never_believed(beside: Bench, rng: random.Random, counts: Counts) -> None:
    """What is cut short is refused with its name, by what reads it; the lock by all, until it is written anew."""
    readers = {
        "study.lock": (("plan", "study.toml"), ("lock", "study.toml")),
        "plan.json": (("apply", "plan.json"), ("plan", "study.toml", "--out", "plan.json")),
        "study.claims": (("report", "study.toml", "--check"), ()),
        "all.tar": (("state", "import", "all.tar"), ("state", "export", "--bundle", "all.tar")),
    }
    for name in ("plan", "report", "bundle"):
        assert beside.lora(*WRITERS[name].words)[0] == 0
    before = beside.finished()
    for name, (reading, writing) in readers.items():
        file = beside.spec.with_name(name)
        whole = file.read_bytes()
        for _ in range(CUTS):
            end = rng.randrange(1, len(whole) - 1024 if name == "all.tar" else len(whole) - 1)
            file.write_bytes(whole[:end])
            code, said = beside.lora(*reading)
            assert_told(code, said)
            assert name in said, said
        if writing:
            assert beside.lora(*writing)[0] == 0
        else:
            file.write_bytes(whole)
        assert beside.lora(*reading)[0] == 0
    assert beside.finished() == before
    counts("faults: torn next to the spec", cuts=CUTS * len(readers), kinds=len(readers))
