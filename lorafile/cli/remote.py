"""`lora state push`, `pull` and `unlock`: a state in a bucket."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorafile.cli.command import PATH, command, lock_option, state_option
from lorafile.cli.state import state_group, yes_option
from lorafile.cli.terminal import agreed, say

if TYPE_CHECKING:
    from lorafile.state.remote.session import Remote

url_argument = click.argument("url", type=PATH, required=False)


@command("push", state_group)
@url_argument
@state_option
@lock_option
def push(url: Path | None, state: Path | None, lock_timeout: float) -> None:
    """Send results that a remote state is missing.

    Merges a directory like `lora state import`: existing results stay. Without URL, the state itself must be in a
    bucket; results that a killed command did not send are then sent.

    \b
    Example: lora state push s3://team/studies --state .lora
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.remote import show_pushed
    from lorafile.state.remote.transfer import push as send

    remote, directory = _remote_and_directory(url, state)
    show_pushed(send(remote, directory, lock_timeout), remote.url, console())


@command("pull", state_group)
@url_argument
@state_option
@lock_option
def pull(url: Path | None, state: Path | None, lock_timeout: float) -> None:
    """Download a remote state with all of its files.

    Commands on a state in a bucket fetch a file only when they read it. Without URL, the state itself must be in a
    bucket; all of its files are then fetched for offline work.

    \b
    Example: lora state pull s3://team/studies --state copy
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.remote import show_pulled
    from lorafile.state.remote.transfer import pull as bring

    remote, directory = _remote_and_directory(url, state)
    show_pulled(bring(remote, directory, lock_timeout), remote.url, console())


@command("unlock", state_group)
@url_argument
@state_option
@yes_option
def unlock(url: Path | None, state: Path | None, yes: bool) -> int:
    """Show who holds the lock of a remote state and release it.

    A command that still holds the lock stops with exit code 4 when it next sends something. A lock without a heartbeat
    for 60 seconds is released automatically.

    \b
    Example: lora state unlock s3://team/studies
    """
    from lorafile.state.remote.lock import LockStatus, describe, free

    remote, _ = _remote_and_directory(url, state, fresh=False)
    status = LockStatus.of(remote.bucket)
    if status.done:
        say(f"{remote.url} is not locked.")
        return 0
    say(f"{describe(status, remote.bucket)}.")
    if not agreed(yes, "Release it?"):
        return 1
    free(remote.bucket, status)
    say("Freed.")
    return 0


def _remote_and_directory(url: Path | None, state: Path | None, fresh: bool = True) -> "tuple[Remote, Path]":
    """Return the remote at a URL, or that of the state, and the local directory of the state.

    :param fresh: take in what is new there
    """
    import os

    from lorafile.state.remote import is_url
    from lorafile.state.remote.session import remote_at, remote_of

    if url is not None and not is_url(url):
        raise click.UsageError(f"{url} is not a URL: write s3://BUCKET/PREFIX, or gs://, az://, file://.")
    named = Path(state or os.environ.get("LORA_STATE") or ".lora")
    remote = remote_at(named) if is_url(named) else remote_of(named)
    directory = remote.directory if remote is not None else named
    remote = remote_at(url) if url is not None else remote
    if remote is None:
        raise click.UsageError("Pass a URL: the state is a local directory without a remote.")
    if fresh:
        remote.refresh()
    return remote, directory
