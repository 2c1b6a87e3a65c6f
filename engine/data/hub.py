"""Downloads from the hub into its cache, and one sentence for each way in which it refuses. Imports no torch.

A token is read by the hub's own client, from `HF_TOKEN` or the file of `hf auth login`; nothing here ever shows one.
"""

import contextlib
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorafile.engine.data.files import CARDS, SUFFIXES
from lorafile.errors import NodeError

_WEIGHTS = "*.safetensors"
MODEL_FILES = (_WEIGHTS, "*.json", "*.model", "*.txt", "*.jinja", "*.py")
_DATA = [*(f"*{end}" for suffix in SUFFIXES for end in (suffix, suffix.upper())), *CARDS]
_LOOKS_LIKE_A_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=Bearer )[^\s'\"]+")


def snapshot(name: str, kind: str, revision: str | None, weights: bool = True) -> Path:
    """Return a hub repository's snapshot; `HF_HUB_OFFLINE=1` takes only what the cache holds.

    :param kind: `model` or `dataset`
    :param weights: a model's weight files, too
    :raises NodeError: one sentence for whatever the hub refuses
    """
    from huggingface_hub import snapshot_download

    try:
        with _silent_off_a_terminal():
            return Path(snapshot_download(**_download_options(name, kind, revision, weights)))
    except Exception as error:  # whatever the client meets, httpx's own errors among it
        raise NodeError(refusal(name, kind, revision, error)) from None  # the cause may quote a header with the token


def cached_snapshot(name: str, kind: str) -> Path | None:
    """Return a repository's snapshot as the cache holds it, or None; the hub is not asked."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(**_download_options(name, kind, None), local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None


def bytes_to_download(name: str, kind: str, revision: str | None) -> int:
    """Return how many bytes of a repository are not in the cache yet; 0 where the hub cannot be asked."""
    from huggingface_hub import snapshot_download

    try:
        with _silent_off_a_terminal():
            listed = snapshot_download(**_download_options(name, kind, revision), dry_run=True)
    except Exception:  # the download that follows meets the same, and says it
        return 0
    return sum(file.file_size or 0 for file in listed if file.will_download)


def check_room(name: str, kind: str, needed: int) -> None:
    """Refuse a download that the disk of the cache has no room for.

    :raises NodeError: with both sizes and the directory
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise NodeError(
            f'The {kind} "{name}" needs {needed / 1e9:.1f} GB, but the disk of {cache} has {free / 1e9:.1f} GB free. '
            "Free some space, or set HF_HOME to a directory on a larger disk."
        )


def refusal(name: str, kind: str, revision: str | None, error: Exception) -> str:
    """Return why a repository did not come, and what to do, in a sentence without any token."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    at_revision = f' at revision "{revision}"' if revision else ""
    if isinstance(error, errors.HFValidationError):
        return f'"{name}" is neither a file or directory here nor a valid hub name.'
    if isinstance(error, errors.GatedRepoError):
        return f'The {kind} "{name}" is gated: accept its conditions at {page}. {_token_advice()}'
    if isinstance(error, errors.RepositoryNotFoundError):
        return f'The hub has no {kind} "{name}", or it is private: see {page}. {_token_advice()}'
    if isinstance(error, errors.RevisionNotFoundError):
        return f'The {kind} "{name}" has no revision "{revision}": its branches and tags are at {page}/tree/main.'
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        how = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        return (
            f'The {kind} "{name}"{at_revision} is neither a path here nor in the hub cache, and {how}. '
            "To download it, run `lora fetch` with a network connection."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f'The {kind} "{name}": no space left on the disk of {constants.HF_HUB_CACHE}. Free some, or set HF_HOME.'
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) == 401:
        return f'The hub rejected the token for the {kind} "{name}". {_token_advice()}'
    return f'The hub did not return the {kind} "{name}"{at_revision}: {hide_tokens(first_line(error))}'


def first_line(error: Exception) -> str:
    """Return the first line of what an error says; where it says nothing, its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def hide_tokens(text: str) -> str:
    """Return a text without the token that is set here, and without whatever looks like one."""
    from huggingface_hub import get_token

    token = get_token()
    return _LOOKS_LIKE_A_TOKEN.sub("***", text.replace(token, "***") if token else text)


def _token_advice() -> str:
    from huggingface_hub import constants, get_token

    why = "The current token has no access to it" if get_token() else "No token is set"
    return f'{why}. Set HF_TOKEN, or run "hf auth login", which stores a token in {constants.HF_TOKEN_PATH}.'


def _download_options(name: str, kind: str, revision: str | None, weights: bool = True) -> dict[str, Any]:
    patterns = [pattern for pattern in MODEL_FILES if weights or pattern != _WEIGHTS] if kind == "model" else _DATA
    return {"repo_id": name, "repo_type": kind, "revision": revision, "allow_patterns": patterns}


@contextlib.contextmanager
def _silent_off_a_terminal() -> Iterator[None]:
    """Show the client's progress bars on a terminal alone."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    decided = are_progress_bars_disabled() or "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ
    if decided or (sys.stderr and sys.stderr.isatty()):
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
