"""A state with a remote: where its local part is, how it is kept up to date, and what a writer does around its work."""

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.errors import StateError
from lorafile.files.atomic import write_text
from lorafile.files.digests import text_digest
from lorafile.files.user_cache import cache_directory
from lorafile.state import State
from lorafile.state.errors import translate_errors
from lorafile.state.lock import InUse
from lorafile.state.objects import origins
from lorafile.state.remote.bucket import Bucket, Unreachable, normalized
from lorafile.state.remote.knowledge import Knowledge
from lorafile.state.remote.link import LINK, is_url
from lorafile.state.remote.lock import LockStatus, RemoteLock, acquire, lock_mode
from lorafile.state.remote.pull import FORMAT, FORMAT_VERSION, Pulled, check_format, note_moment, take_all, unseen
from lorafile.state.remote.push import Sender, Sending
from lorafile.units import plural

_FRESH_SECONDS = 10.0  # for which one command does not look again
_LOCAL_LOCK_SECONDS = 5.0  # that a reader waits for a writer of the local state
_SHOWN = 40
_log = logging.getLogger(__name__)
_remotes: dict[Path, "Remote"] = {}  # of this process, by their local states


@dataclass
class Remote:
    """A remote and the local state in front of it; also where that one's objects come from."""

    bucket: Bucket
    directory: Path
    knowledge: Knowledge
    looked: float = field(default=float("-inf"))  # when it was listed last, by the monotonic clock

    @property
    def url(self) -> str:
        """Its URL."""
        return self.bucket.url

    def has(self, digest: str) -> bool:
        """Return whether an object is there."""
        return digest in self.knowledge.objects

    def download(self, digest: str, target: Path) -> None:
        """Write an object's bytes to a path here."""
        try:
            self.bucket.download(f"objects/{digest[:2]}/{digest}", target)
        except Unreachable as error:
            raise StateError(
                f"The object {digest[:12]}… exists only in the remote, and {error} Try again when it can be reached."
            ) from error

    def refresh(self, only_news: bool = False) -> None:
        """Take in what is new, and say as log records how fresh the local state is. No lock of the remote is taken.

        :param only_news: say nothing where nothing is new
        :raises StateError: when the remote refuses, or cannot be reached and nothing of it is here
        """
        if time.monotonic() - self.looked < _FRESH_SECONDS:
            return
        self.looked = time.monotonic()
        try:
            pulled = self._pull_as_reader()
        except Unreachable as error:
            when = self.knowledge.notes.get("pulled")
            if when is None:
                raise StateError(
                    f"{error} There is no copy on this machine yet. Try again when it can be reached."
                ) from error
            _log.warning("%s Using the copy on this machine from %s.", error, _moment(when))
            return
        if pulled is None:
            _log.warning("The copy of %s on this machine is in use; using its current contents.", self.url)
            return
        for reason in pulled.damaged:
            _log.warning("%s. Nothing was imported from it; its results count as not done.", reason)
        if only_news and not pulled.attempts:
            return
        new = f", with {plural(pulled.attempts, 'new attempt')}" if pulled.attempts else ""
        _log.info("State %s as of %s%s.", self.url, _moment(self.knowledge.notes["pulled"]), new)

    def _pull_as_reader(self) -> Pulled | None:
        """Take in what is new; None where a writer holds the local state."""
        names = unseen(self.bucket, self.knowledge)
        pulled = Pulled()
        if names:
            check_format(self.bucket)
            with contextlib.ExitStack() as stack:
                try:
                    state = stack.enter_context(State.write(self.directory, _LOCAL_LOCK_SECONDS))
                except InUse:
                    return None
                self.knowledge.reload()  # who held it may have taken them in
                names = [name for name in names if name not in self.knowledge.bundles]
                pulled = take_all(self.bucket, names, state, self.knowledge)
        note_moment(self.knowledge)
        return pulled


@dataclass
class Session:
    """What a writer has of a remote while it works."""

    remote: Remote
    lock: RemoteLock | None
    sender: Sender

    @property
    def provenance(self) -> dict[str, str]:
        """What is recorded with each attempt of how it was kept from others'."""
        return {} if self.lock is not None else {"state_lock": "none"}

    def sending(self, on_lost: Callable[[], None]) -> Sending:
        """Return what sends in a thread for as long as it is entered."""
        return Sending(self.sender, on_lost)

    def pull(self, lock_timeout: float) -> None:
        """Take in all that is there.

        :raises StateError: when a bundle is damaged: what it holds would be paid for again
        """
        remote = self.remote
        if not check_format(remote.bucket):
            about = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION}) + "\n"
            remote.bucket.create("lora.json", about.encode())
        with State.write(remote.directory, lock_timeout) as state:
            remote.knowledge.reload()
            pulled = take_all(remote.bucket, unseen(remote.bucket, remote.knowledge), state, remote.knowledge)
        note_moment(remote.knowledge)
        remote.looked = time.monotonic()
        if pulled.damaged:
            raise StateError(
                f"{pulled.damaged[0]}. Nothing was imported from it, and no work starts without it. If it cannot be "
                "restored, delete that file from the bucket; its results are then recreated."
            )

    def finish(self) -> None:
        """Send what is left.

        :raises StateError: when it stays here, with what sends it later
        """
        try:
            if self.lock is not None and self.lock.lost:
                self.lock.check()  # it says to whom
            self.sender.send()
        except Unreachable as error:
            raise StateError(
                f"{error} Finished results not sent yet are kept in {self.remote.directory}. The next command "
                f"that takes the lock sends them, or run: lora state push --state {self.remote.url}"
            ) from error


def connect(name: str | Path) -> Path:
    """Return the local state of a URL, or one that is named itself, with what is new in the remote.

    :raises StateError: when the URL is none, or the remote refuses; MissingExtra: without obstore
    """
    remote = remote_at(name) if is_url(name) else remote_of(Path(name))
    if remote is None:
        return Path(name)
    remote.refresh()
    return remote.directory


def remote_at(name: str | Path) -> Remote:
    """Return the remote at a URL with its local state, without asking it for anything."""
    url = normalized(name)
    bucket = Bucket.open(url)
    shown = re.sub("[^A-Za-z0-9]+", "-", url)[-_SHOWN:].strip("-")
    directory = cache_directory("states") / f"{shown}-{text_digest(url)[:12]}"
    if directory.absolute() not in _remotes:
        with translate_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            if not (directory / LINK).exists():
                write_text(directory / LINK, json.dumps({"url": url}) + "\n")
        _register(directory, bucket)
    return _remotes[directory.absolute()]


def remote_of(directory: Path) -> Remote | None:
    """Return the remote of a local state; None where it has none."""
    directory = directory.absolute()
    if directory not in _remotes and (directory / LINK).is_file():
        try:
            url = normalized(str(json.loads((directory / LINK).read_text(encoding="utf-8"))["url"]))
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(f"{directory / LINK} is damaged. Pass the state's URL with --state.") from error
        _register(directory, Bucket.open(url))
    return _remotes.get(directory)


def _moment(when: str) -> str:
    """Return `2026-11-30 15:44:09 UTC` of a moment as it is recorded."""
    return f"{when[:10]} {when[11:19]} UTC"


def _register(directory: Path, bucket: Bucket) -> None:
    remote = Remote(bucket, directory, Knowledge.load(directory))
    _remotes[directory.absolute()] = remote
    origins[(directory / "objects").absolute()] = remote


@contextlib.contextmanager
def locked(directory: Path, lock_timeout: float = 0.0, mode: str = "") -> Iterator[Session | None]:
    """Hold the lock of a state's remote; what is new there is here first, and what is new here is there afterwards.

    A state without a remote gives None, and nothing is done. The local state's own lock is taken inside, by who writes.

    :param lock_timeout: seconds to wait for another apply
    :param mode: `lease`, or `none` for a backend without conditional writes; what the command line says otherwise
    :raises StateError: when another process holds it, when it was lost meanwhile, or when something could not be sent
    """
    remote = remote_of(directory)
    if remote is None:
        yield None
        return
    free = (mode or lock_mode.get()) == "none"
    lock = None if free else acquire(remote.bucket, lock_timeout)
    number = lock.number if lock else LockStatus.of(remote.bucket).number
    with lock or contextlib.nullcontext():
        session = Session(remote, lock, Sender(remote.bucket, State(directory), remote.knowledge, lock, number))
        session.pull(lock_timeout)
        session.finish()  # what a command that was killed had not sent
        try:
            yield session
        except BaseException:
            with contextlib.suppress(StateError):  # its own error goes first; the next holder sends the rest
                session.finish()
            raise
        session.finish()
