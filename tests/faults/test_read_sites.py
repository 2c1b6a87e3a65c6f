"""Every place where something of the state is read, and the disk does not give it back: told, and never paid for."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from faults.shim import ERRORS, Shim, Site, sites
from faults.study import OPTIONS, Bench, Counts, assert_sound, assert_told
from faults.test_write_sites import without_scores

RUN = "alpha/r=2,lora_alpha=2"
READERS: dict[str, tuple[str, ...]] = {
    "plan": ("plan", "study.toml", "--json"),
    "report": ("report", "study.toml", "--json"),
    "show": ("show", RUN, "--predictions", "2"),
    "list": ("state", "list", "--json"),
    "verify": ("state", "verify"),
    "repair": ("state", "verify", "--repair"),
    "tables": ("state", "export", "--out", "tables"),
    "bundle": ("state", "export", "--bundle", "all.tar"),
    "export": ("export", RUN, "adapter", "--force"),
    "apply": ("apply", "study.toml", *OPTIONS),
}
SAMPLED = {"report": 1, "repair": 1}
LASTING = {"once": 0, "always": 1}


def times(found: Counter[Site], rng: random.Random) -> list[tuple[Site, int, str]]:
    """Return each site with a first, a drawn and a last time, at which it fails once or from then on."""
    chosen = []
    for site in sorted((site for site in found if site.name.startswith(("state.db", "objects/"))), key=str):
        nth = {1, rng.randint(1, found[site]), found[site]}
        chosen += [(site, time, how) for time in sorted(nth) for how in LASTING]
    return chosen


def figures(said: str) -> object:
    """Return what a command prints as JSON, or its text."""
    try:
        return json.loads(said)
    except ValueError:
        return said


def unread(bench: Bench, shim: Shim, name: str, case: tuple[Site, int, str], undisturbed: str) -> bool:
    """Let a command meet a disk that does not read; return whether it said so."""
    site, nth, how = case
    before = bench.finished()
    fault = {"act": ERRORS["EIO"], "op": site.op, "name": site.name, "nth": nth, "lasting": LASTING[how]}
    code, said = bench.disturbed(shim.environment(bench.state, reads=1, **fault), *READERS[name])
    if code == 0:
        assert name in ("repair", "apply") or figures(said) == figures(undisturbed), "not what it was"
    else:
        assert_told(code, said)
        assert "/objects/" in said or "state.db" in said, f"no file: {said}"
    now = bench.finished()
    assert all(now.get(key) == attempts for key, attempts in before.items()), "something finished is gone"
    if name == "apply":
        again, after = bench.lora(*READERS["apply"])
        assert again == 0, after
    assert_sound(bench, bench.finished())
    return code != 0


@pytest.mark.sampled(5)
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", READERS)
def test_a_disk_that_does_not_read_is_told_and_nothing_is_done_again(
    done: Bench, shim: Shim, name: str, full: bool, rng: random.Random, counts: Counts
) -> None:
    if not full and name not in SAMPLED:
        pytest.skip("a part of --full")
    if name == "apply":
        without_scores(done)
    template = done.spec.with_name("template")
    shutil.copytree(done.state, template)
    log = shim.log
    code, undisturbed = done.disturbed(shim.environment(done.state, log=log, reads=1), *READERS[name])
    assert code == 0, undisturbed
    chosen = times(sites(log), rng)
    chosen = chosen if full else rng.sample(chosen, SAMPLED[name])
    wrong, met, told = dict[str, str](), 0, 0
    for case in chosen:
        shutil.rmtree(done.state)
        shutil.copytree(template, done.state)
        for made in ("tables", "adapter"):
            shutil.rmtree(done.spec.with_name(made), ignore_errors=True)
        Path(done.spec.with_name("all.tar")).unlink(missing_ok=True)
        try:
            told += unread(done, shim, name, case, undisturbed)
        except AssertionError as error:
            wrong[f"{case[2]} at {case[0]}, time {case[1]}"] = str(error)[-600:]
        met += shim.fired
    counts("faults: EIO at a read", sites_and_times=len(chosen), met=met, told=told, wrong=len(wrong))
    assert not wrong, "\n".join(f"{case}: {error}" for case, error in wrong.items())
