"""A prefix of a bucket, or a directory: create if absent, read, list. Its errors are sentences without credentials."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile.errors import MissingExtra, StateError
from lorafile.state.remote.link import URL

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = {"s3": "Amazon S3 and compatible services", "gs": "Google Cloud", "az": "Azure", "file": "a directory"}
_CODE = re.compile(r"<Code>(\w+)</Code>|status code: (\d{3} [A-Za-z ]+)")
_REFUSED = re.compile(
    r"<Code>(AccessDenied|SignatureDoesNotMatch|Invalid\w*|Expired\w*)</Code>|status code: 40[13]|[Cc]redential"
)
_LARGEST_PUT = 1 << 23  # bytes: larger files are sent in parts, which no service does on a condition
_PIECE = 1 << 23  # bytes of a file that come with one request
_CONNECT_TIMEOUT, _RETRY_TIMEOUT = timedelta(seconds=5), timedelta(seconds=15)
_RETRIES, _PARTS_AT_ONCE = 3, 4
PATIENT, QUICK = 300, 15  # seconds that a request may take: with a piece of a file, and with a few bytes


class Unreachable(StateError):
    """The remote does not answer now."""


class LostLock(StateError):
    """Another process holds the remote's lock now."""


@dataclass(frozen=True)
class Entry:
    """A file of a bucket: its path under the prefix, its size in bytes, and when it was written, by the server."""

    path: str
    bytes: int
    modified: datetime


def normalized(name: str | Path) -> str:
    """Return a state's URL in the one way that it is written in: `s3://bucket/prefix`.

    :raises StateError: when it is none that a state can have, or holds credentials
    """
    match = URL.match(str(name))
    scheme, rest = (match[1].lower(), match[2].strip("/")) if match else ("", "")
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}:// ({what})" for name, what in SCHEMES.items())
        raise StateError(f"A state cannot be at {scheme}://. Pass a directory, or one of these URLs: {known}.")
    if "?" in rest or "#" in rest or "@" in rest:
        raise StateError(
            f"The URL {scheme}://… of the state has more than a bucket and a prefix. Omit credentials and options: "
            "they are read from the environment (docs/state.md)."
        )
    if not rest:
        raise StateError(f"The URL {scheme}:// has no bucket. Write {scheme}://BUCKET/PREFIX.")
    return f"{scheme}://{'/' if scheme == 'file' else ''}{rest}"


@dataclass(frozen=True)
class Bucket:
    """What is under one URL."""

    url: str
    store: "ObjectStore"

    @classmethod
    def open(cls, url: str, timeout: int = PATIENT) -> "Bucket":
        """Open a normalized URL; nothing is asked of the server yet.

        :param timeout: seconds that a request may take
        :raises MissingExtra: without obstore; StateError: when the environment lacks what the service needs
        """
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise MissingExtra("A state in a bucket", "obstore", "remote") from error
        if url.startswith("file://"):
            parent = Path(url.removeprefix("file://")).parent
            if not parent.is_dir():
                raise StateError(f"The state {url} cannot be opened: there is no directory {parent}. Create it first.")
            return cls(url, from_url(url, mkdir=True))
        plain_http = any(value.startswith("http://") for name, value in os.environ.items() if "ENDPOINT" in name)
        allow_http = plain_http or os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"
        client = {"allow_http": allow_http, "timeout": timedelta(seconds=timeout), "connect_timeout": _CONNECT_TIMEOUT}
        retry = {"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT}
        try:
            return cls(url, from_url(url, client_options=client, retry_config=retry))  # type: ignore[call-overload]
        except BaseError as error:
            raise StateError(f"The state {url} cannot be opened: {_first_line(error)}. {_ENVIRONMENT}") from None

    def create(self, path: str, content: bytes) -> bool:
        """Write a file that is not there yet; return False where it is, unless it holds these very bytes.

        A service may have written it although its answer was lost, and then refuses the second try.
        """
        return self._put_new(path, content) or self.read(path) == content

    def _put_new(self, path: str, content: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._sentences():
            try:
                self.store.put(path, content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def write(self, path: str, content: bytes) -> None:
        """Write a file, whatever was there."""
        with self._sentences():
            self.store.put(path, content, use_multipart=False)

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; None where it is not there."""
        with self._sentences():
            try:
                return bytes(self.store.get(path).bytes())
            except FileNotFoundError as error:
                _check_bucket(error)
                return None

    def modified(self, path: str) -> datetime:
        """Return when a file was written, by the server's clock."""
        with self._sentences():
            return self.store.head(path)["last_modified"]

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield every file under a folder."""
        with self._sentences():
            for page in self.store.list(prefix):
                yield from (Entry(meta["path"], meta["size"], meta["last_modified"]) for meta in page)

    def upload(self, path: str, file: Path) -> None:
        """Send a file whose name follows from its bytes; nothing where it is there already."""
        size = file.stat().st_size
        if size <= _LARGEST_PUT:
            self._put_new(path, file.read_bytes())
            return
        with self._sentences():
            try:
                if self.store.head(path)["size"] == size:
                    return
            except FileNotFoundError as error:
                _check_bucket(error)
            self.store.put(path, file, max_concurrency=_PARTS_AT_ONCE)

    def download(self, path: str, target: Path) -> None:
        """Write a file's bytes to a path here; they come in pieces, each of which is asked for again where it fails.

        :raises StateError: when it is not there
        """
        with self._sentences(), target.open("wb") as stream:
            first = self.store.get(path, options={"range": (0, _PIECE)})
            stream.write(first.bytes())
            for start in range(_PIECE, first.meta["size"], _PIECE):
                stream.write(self.store.get_range(path, start=start, length=_PIECE))

    def delete(self, paths: list[str]) -> None:
        """Take files away."""
        if paths:
            with self._sentences():
                self.store.delete(paths)

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn errors of the service into a sentence; what it answers may hold keys, and is left out, also of traces.

        :raises Unreachable: when it may answer later; StateError: when something has to be changed first
        """
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            if isinstance(error, OSError) and "Debug source" not in str(error):
                raise  # the disk here
            text = str(error)
            if "NoSuchBucket" in text or "ContainerNotFound" in text:
                failure = StateError(f"There is no bucket for {self.url}. Create it, or correct the name.")
            elif _REFUSED.search(text):
                failure = StateError(f"Access to {self.url} is denied ({_reason(text)}). {_ENVIRONMENT}")
            elif isinstance(error, FileNotFoundError):
                failure = StateError(
                    f"A file in {self.url} no longer exists: {_first_line(error)}. Run the command again."
                )
            else:
                failure = Unreachable(f"{self.url} cannot be reached ({_reason(text)}).")
            raise failure from None


_ENVIRONMENT = (
    "Credentials are read from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (S3), "
    "GOOGLE_APPLICATION_CREDENTIALS (Google Cloud), AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (Azure)."
)


def _check_bucket(error: FileNotFoundError) -> None:
    if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
        raise error


def _reason(text: str) -> str:
    """Return the code or the last words of an error; never an answer's body, a query or a header."""
    if match := _CODE.search(text):
        return (match[1] or match[2]).strip()
    return text.partition("\n")[0].rpartition(" - ")[2].partition("?")[0].strip()[:120] or "no answer"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(": Error performing")[0].partition("?")[0].rstrip(".")[:200]
