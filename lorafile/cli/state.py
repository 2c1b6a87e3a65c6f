"""`lora state`: look into the store of finished work, and keep it sound and small."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorafile.cli.command import (
    PATH,
    command,
    group,
    json_option,
    lock_option,
    quiet_option,
    spec_option,
    state_option,
)
from lorafile.cli.completion import complete_names
from lorafile.cli.terminal import agreed, echo, say
from lorafile.errors import StateError

if TYPE_CHECKING:
    from rich.console import Console

yes_option = click.option("--yes", is_flag=True, help="Remove without asking for approval.")
_DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@group("state")
def state_group() -> None:
    """Inspect, verify, clean up and share the state.

    \b
    Example: lora state list --where "exact_match>0.5"
    """


@command("list", state_group)
@state_option
@click.option("--study", default="", help="Only nodes of this study.")
@click.option("--kind", default="run", show_default=True, help="Kind: run, all, train, predict, score, profile, …")
@click.option("--outcome", default="", help="done, diverged, out-of-memory, failed or interrupted.")
@click.option(
    "--where", multiple=True, help="Condition on a setting or metric: lora.r=16, test.exact_match>0.5. Repeatable."
)
@click.option("--since", type=_DATE, metavar="DATE", help="Started on or after this date (UTC).")
@click.option("--until", type=_DATE, metavar="DATE", help="Started before this date (UTC).")
@json_option
def list_(state: Path | None, as_json: bool, **options: object) -> None:
    """List runs, filtered by study, setting, metric or date.

    \b
    Example: lora state list --study rank-ablation --where lora.r=16 --where "log_loss<1.2"
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.state import list_json, show_list
    from lorafile.state import State
    from lorafile.state.listing import NodeFilter, list_nodes
    from lorafile.study.study import state_directory

    times = {name: f"{options[name]:%Y-%m-%dT%H:%M:%S}" if options[name] else "" for name in ("since", "until")}
    node_filter = NodeFilter(**{**options, **times})  # type: ignore[arg-type]
    rows = State.snapshot(state_directory(state), lambda stored: list_nodes(stored, node_filter))
    if as_json:
        echo(list_json(rows))
    else:
        show_list(rows, console())


@command("show", state_group)
@click.argument("name", shell_complete=complete_names)
@spec_option
@state_option
@json_option
def show(name: str, spec: Path | None, state: Path | None, as_json: bool) -> None:
    """Show the record of one node: attempts, files, environments.

    Settings, inputs, every attempt, and files with digests and paths.

    For a run, shows its training. `lora show` has its results, predictions and loss. If several studies have the name,
    pass --spec or the key.

    \b
    Example: lora state show rank/r=16/seed=42
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.state import show_stored, stored_json
    from lorafile.plan.names import names_of
    from lorafile.state import State
    from lorafile.state.names import find_node
    from lorafile.state.node_details import NodeDetails, node_details
    from lorafile.study.study import spec_and_state

    study_spec, directory = spec_and_state(spec, state)

    def read(stored: State) -> NodeDetails:
        return node_details(stored, find_node(names_of(stored, study_spec), name))

    details = State.snapshot(directory, read)
    if as_json:
        echo(stored_json(details))
    else:
        show_stored(details, console())


@command("rm", state_group)
@click.argument("names", nargs=-1, required=True, shell_complete=complete_names)
@click.option("--reason", default="removed by hand", help="The reason; recorded with the removed results.")
@spec_option
@state_option
@yes_option
@lock_option
def rm(
    names: tuple[str, ...], reason: str, spec: Path | None, state: Path | None, yes: bool, lock_timeout: float
) -> int:
    """Remove results so that the next apply runs them again.

    NAMES are addresses, runs, configurations, key prefixes, or patterns such as "rank/*:train". A pattern matches in
    every study in the state, or only in the study of --spec. If a name means different runs in several studies, nothing
    is removed until you pass --spec or a key. The attempts stay on record; `lora state gc` deletes the files.

    \b
    Example: lora state rm rank/r=16/seed=42:train --reason "the GPU was faulty"
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.state import show_forgettable
    from lorafile.plan.names import names_of
    from lorafile.state import State
    from lorafile.state.ledger import forget, forgettable
    from lorafile.state.remote.session import locked
    from lorafile.study.study import spec_and_state

    study_spec, directory = spec_and_state(spec, state)
    stored = State.read(directory)
    nodes = forgettable(stored, names_of(stored, study_spec), names)
    show_forgettable(nodes, console())
    if not nodes:
        return 0
    if not agreed(yes, "Remove these?"):
        return 1
    with locked(directory, lock_timeout):
        forget(directory, nodes, reason, lock_timeout)
    say("Removed. The next apply of a study that declares them runs them again.")
    return 0


@command("accept", state_group)
@click.argument("old")
@click.argument("new")
@click.option("--reason", help="Why the two are equivalent; shown wherever the result is reused.")
@click.option("--spec", type=PATH, help="The spec, if NEW is an address.")
@click.option("--withdraw", is_flag=True, help="Undo: run NEW itself again.")
@state_option
@lock_option
def accept(
    old: str, new: str, reason: str | None, spec: Path | None, withdraw: bool, state: Path | None, lock_timeout: float
) -> None:
    """Reuse the result of one key for another, with a reason.

    The finished result of OLD, and everything computed from it, is used wherever a study has NEW.

    OLD is an address or a key prefix. NEW is a full key (see `lora plan --json`) or, with --spec, the address of a node
    that the study currently declares.

    \b
    Example: lora state accept 3f2a9c rank/r=16/seed=42:train --spec study.toml --reason "only the path moved"
    """
    from lorafile.plan.names import names_of
    from lorafile.state import ledger
    from lorafile.state.remote.session import locked
    from lorafile.study.study import spec_and_state

    study_spec, directory = spec_and_state(spec, state)
    names = (lambda stored: names_of(stored, study_spec)) if study_spec else None
    if not reason and not withdraw:
        raise click.UsageError("--reason is required: it is shown wherever the result is used.")
    with locked(directory, lock_timeout):
        if withdraw:
            for key in ledger.withdraw_by_name(directory, new, names, lock_timeout):
                say(f"{key[:12]}… uses its own result again.")
            return
        accepted = ledger.accept_by_name(directory, old, new, reason or "", names, lock_timeout)
    say(f"The result of {accepted.old[:12]}… is used in place of {accepted.new[:12]}…: {accepted.reason}")


@command("verify", state_group)
@click.option("--repair", is_flag=True, help="Repair what can be repaired; the next apply reruns the rest.")
@state_option
@lock_option
@json_option
@quiet_option
def verify(repair: bool, state: Path | None, lock_timeout: float, as_json: bool, quiet: bool) -> int:
    """Check every file and row; exit 4 when one is damaged.

    With --repair, removes damaged files; the next apply recreates the results they belonged to (a score from its
    predictions, without a GPU). Saves every intact row of a damaged index into a new one and keeps the old one.

    \b
    Example: lora state verify --repair
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.state import show_repaired, show_verified, verified_json
    from lorafile.state.integrity import verify as state_verify
    from lorafile.state.integrity.repair import repair as mend
    from lorafile.state.remote.session import remote_of
    from lorafile.study.study import state_directory

    out, directory = console(quiet or as_json), state_directory(state)
    if repair and (remote := remote_of(directory)):
        raise StateError(
            f"A damaged local copy of {remote.url} is not repaired but fetched again. Send any results that only the "
            f"copy has with: lora state push --state {remote.url}. Then delete {directory}"
        )
    with _bar(out) as on_progress:
        repaired = mend(directory, lock_timeout, on_progress) if repair else None
        verified = repaired.verification if repaired else state_verify.verify(directory, on_progress)
    if as_json:
        echo(verified_json(verified, repaired))
    else:
        show_verified(verified, out)
        if repaired is not None:
            show_repaired(repaired, out)
    return 0 if verified.sound or (repaired is not None and not verified.unreadable) else 4


@command("gc", state_group)
@click.argument("specs", nargs=-1, type=PATH)
@state_option
@yes_option
@lock_option
@json_option
def gc(specs: tuple[Path, ...], state: Path | None, yes: bool, lock_timeout: float, as_json: bool) -> None:
    """Show files that no study needs; remove them with --yes.

    Without SPECS, these are files that no study declared when it was last applied. Attempts and their metrics stay on
    record. For a state in a bucket, these are files that no bundle lists and that are older than a week.

    \b
    Example: lora state gc study.toml other/study.toml --yes
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.state import garbage_json, show_garbage
    from lorafile.state import State
    from lorafile.state.gc import garbage, needed_keys, sweep
    from lorafile.state.remote.session import remote_of
    from lorafile.study.study import Study, state_directory

    directory = state_directory(state)
    if remote := remote_of(directory):
        if specs:
            raise click.UsageError("A state in a bucket keeps every file of a result; omit SPECS.")
        from lorafile.state.remote import transfer

        freed = transfer.sweep(remote, lock_timeout) if yes else transfer.garbage(remote)
        echo(garbage_json(freed, yes)) if as_json else show_garbage(freed, yes, console())
        return
    studies = [Study.load(spec, state) for spec in specs]

    def declared() -> set[str]:
        return {key for study in studies for key in study.plan().graph.nodes}

    keys = declared if studies else None
    if yes:
        freed = sweep(directory, keys, lock_timeout)
    else:
        freed = State.snapshot(directory, lambda stored: garbage(stored, needed_keys(stored, keys)))
    if as_json:
        echo(garbage_json(freed, yes))
    else:
        show_garbage(freed, yes, console())


@contextlib.contextmanager
def _bar(out: "Console") -> Iterator[Callable[[int, int], None] | None]:
    """Show the progress of a long check, on a terminal."""
    if not out.is_terminal or out.quiet:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("checking"), *columns, console=out, transient=True) as progress:
        task = progress.add_task("checking", total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


@command("export", state_group)
@click.argument("names", nargs=-1)
@click.option("--bundle", type=PATH, help="Write a bundle with the rows and files of NAMES to this tar file.")
@click.option("--format", "form", type=click.Choice(["csv", "json", "parquet"]), default="csv", show_default=True)
@click.option(
    "--table",
    "tables",
    type=click.Choice(["runs", "metrics", "curves"]),
    multiple=True,
    help="Tables to write. Repeatable.",
)
@click.option("--out", type=PATH, help="Output directory for the tables. [default: print one table]")
@spec_option
@state_option
def export(
    names: tuple[str, ...],
    bundle: Path | None,
    form: str,
    tables: tuple[str, ...],
    out: Path | None,
    spec: Path | None,
    state: Path | None,
) -> None:
    """Write tables (CSV, JSON, Parquet) or a bundle to share.

    A bundle holds the results that NAMES match (runs, configurations, patterns; default: everything), all of their
    inputs, including the prepared examples, and the files. A name that means different runs in several studies needs
    --spec or the key; a pattern matches in all of them.

    \b
    Example: lora state export --format parquet --out tables
    Example: lora state export "rank/*" --bundle rank.tar
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.state import show_bundled
    from lorafile.plan.names import names_of
    from lorafile.state import State
    from lorafile.state.transfer.exporter import TABLES, BundleSummary, export_bundle, table_text, write_tables
    from lorafile.study.study import spec_and_state

    study_spec, directory = spec_and_state(spec, state)
    if bundle is not None:
        if tables or out is not None:
            raise click.UsageError("--bundle writes everything to one file; omit --table and --out.")

        def write(stored: State) -> BundleSummary:
            return export_bundle(stored, names, bundle, names_of(stored, study_spec) if names else None)

        show_bundled(State.snapshot(directory, write), console())
        return
    if names or spec is not None:
        raise click.UsageError("Tables hold every run; NAMES and --spec apply only to --bundle.")
    if out is None:
        if len(tables) != 1 or form == "parquet":
            raise click.UsageError("Pass one --table to print as csv or json, or a directory with --out.")
        click.echo(State.snapshot(directory, lambda stored: table_text(stored, tables[0], form)), nl=False)
        return
    for file in State.snapshot(directory, lambda stored: write_tables(stored, tables or TABLES, form, out)):
        echo(f"Wrote {file}")


@command("import", state_group)
@click.argument("source", type=PATH)
@state_option
@lock_option
def import_(source: Path, state: Path | None, lock_timeout: float) -> None:
    """Merge a bundle or another state into this one.

    Existing results stay; files that were lost or garbage-collected are restored. Every file and row is verified first,
    and nothing is imported from a damaged or malicious bundle.

    \b
    Example: lora state import rank.tar
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.state import show_merged
    from lorafile.state.remote.session import locked
    from lorafile.state.transfer.importer import import_state
    from lorafile.study.study import state_directory

    directory = state_directory(state)
    with locked(directory, lock_timeout):
        merged = import_state(source, directory, lock_timeout)
    show_merged(merged, console())
