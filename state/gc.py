"""`lora state gc`: what no study declares any more goes; what was done, and how well, stays on record."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.files.run_directory import unfinished
from lorafile.state import State, ledger
from lorafile.state.integrity.leftovers import leftovers, list_objects, remove_paths, size_of, unfinished_runs

GetKeys = Callable[[], set[str]]  # called under the state's lock: what a study declares may depend on its results


@dataclass(frozen=True)
class FreedObjects:
    """Objects that go for one reason: what they are of, how many, how large."""

    what: str
    why: str
    digests: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Garbage:
    """What would go, and what stays.

    :ivar kept: number and bytes of the objects that stay; `paths`: unfinished runs, and what killed processes left
    """

    freed: list[FreedObjects]
    paths: list[Path]
    paths_bytes: int
    kept: tuple[int, int]
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """How much room there would be."""
        return sum(group.bytes for group in self.freed) + self.paths_bytes


def needed_keys(state: State, declared: GetKeys | None) -> set[str]:
    """Return every key that studies declare, with all that they read.

    :param declared: gives the keys of some studies; without it, those of every study when it was last applied
    """
    keys = {key for (key,) in state.rows("SELECT key FROM declarations")} if declared is None else declared()
    return state.with_inputs(keys)


def garbage(state: State, keep: set[str]) -> Garbage:
    """Return what no node of `keep` needs; its newest results stay whole."""
    listing = list_objects(state.objects)
    sizes = listing.objects
    standing = {number for (number,) in state.rows("SELECT id FROM standing")}
    finished = {key for (key,) in state.rows("SELECT key FROM results")}
    needed: set[str] = set()
    owners: dict[str, tuple[str, str]] = {}
    for digest, number, key, address, study, kind in state.rows(
        "SELECT o.digest, a.id, a.key, a.address, a.study, a.kind FROM outputs o JOIN attempts a ON a.id = o.attempt"
    ):
        if key in keep and number in standing:
            needed.add(digest)
        why = "recreated since, or removed" if key in keep else "declared by no study"
        owners[digest] = (f"{study}: {address.partition(':')[0]} ({kind})", why)
    groups: dict[tuple[str, str], list[str]] = {}
    for digest in sizes.keys() - needed:
        groups.setdefault(owners.get(digest, ("objects", "not referenced")), []).append(digest)
    freed = [
        FreedObjects(what, why, tuple(sorted(digests)), sum(sizes[digest] for digest in digests))
        for (what, why), digests in groups.items()
    ]
    paths = [*listing.temporary, *leftovers(state.directory)]
    for key, path in unfinished_runs(state.directory).items():
        run = unfinished(path)
        if (key not in keep or key in finished) and not (run and run.live):
            paths.append(path)
    kept = [sizes[digest] for digest in sizes.keys() & needed]
    freed.sort(key=lambda group: (-group.bytes, group.what))
    return Garbage(freed, paths, size_of(paths), (len(kept), sum(kept)), sizes)


def sweep(directory: Path, declared: GetKeys | None, lock_timeout: float) -> Garbage:
    """Take away what no study declares, as it is under the state's lock; return what went."""
    with State.write(directory, lock_timeout) as state:
        waste = garbage(state, needed_keys(state, declared))
        ledger.collect(state, {digest: waste.sizes[digest] for group in waste.freed for digest in group.digests})
        remove_paths(waste.paths)
        return waste
