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

    A run stands for its training. `lora show` has its figures, its predictions and its loss. Where several studies have
    the name, --spec or the key says which is meant.

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
@click.option("--reason", default="removed by hand", help="Why; recorded with the removed results.")
@spec_option
@state_option
@yes_option
@lock_option
def rm(
    names: tuple[str, ...], reason: str, spec: Path | None, state: Path | None, yes: bool, lock_timeout: float
) -> int:
    """Remove results, so that the next apply runs them again.

    NAMES are addresses, runs, configurations, beginnings of keys, or patterns such as "rank/*:train". A pattern takes
    what fits in every study of the state, or with --spec in that one; of a name that means different runs in several
    studies nothing is forgotten until --spec or a key says which. What was tried stays on record; the files go with the
    next `lora state gc`.

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
    if not agreed(yes, "Forget these?"):
        return 1
    with locked(directory, lock_timeout):
        forget(directory, nodes, reason, lock_timeout)
    say("Forgotten. The next apply of a study that declares them makes them again.")
    return 0


@command("accept", state_group)
@click.argument("old")
@click.argument("new")
@click.option("--reason", help="Why the two are equivalent; shown wherever the result is reused.")
@click.option("--spec", type=PATH, help="The spec, if NEW is an address.")
@click.option("--withdraw", is_flag=True, help="Undo: NEW is run by itself again.")
@state_option
@lock_option
def accept(
    old: str, new: str, reason: str | None, spec: Path | None, withdraw: bool, state: Path | None, lock_timeout: float
) -> None:
    """Reuse the result of one key for another, with a reason.

    The finished result of OLD is used wherever a study has NEW, and so is what was made from it.

    OLD is an address or the beginning of a key; NEW a whole key (`lora plan --json` has them), or with --spec the
    address of a node that the study declares now.

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
        raise click.UsageError("--reason is needed: it is shown wherever the result is used.")
    with locked(directory, lock_timeout):
        if withdraw:
            for key in ledger.withdraw_by_name(directory, new, names, lock_timeout):
                say(f"{key[:12]}… stands for itself again.")
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

    With --repair damaged files are taken away, and what they belonged to is made again by the next apply: a score from
    its predictions, without a GPU. Of a damaged index every sound row is saved into a new one; the old one is kept.

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
            f"A damaged copy of {remote.url} is not repaired but fetched again. Send what it alone has, if anything, "
            f"with: lora state push --state {remote.url}; then delete {directory}"
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
    """Show files that no study needs; with --yes, remove them.

    Without SPECS: what no study declared when it was last applied. What was done, and its figures, stay on record. Of a
    state in a bucket: the files there that no bundle names and that are older than a week.

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
            raise click.UsageError("A state in a bucket keeps every file that a result has; leave SPECS out.")
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
    """Write tables (CSV, JSON, Parquet), or a bundle to share.

    A bundle holds what NAMES mean (runs, configurations, patterns; everything where none is given), all that it was
    made from, the prepared examples among it, and the files. A name that means different runs in several studies needs
    --spec, or the key; a pattern takes what fits in all of them.

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
            raise click.UsageError("--bundle writes one file with everything; leave out --table and --out.")

        def write(stored: State) -> BundleSummary:
            return export_bundle(stored, names, bundle, names_of(stored, study_spec) if names else None)

        show_bundled(State.snapshot(directory, write), console())
        return
    if names or spec is not None:
        raise click.UsageError("Tables hold every run; NAMES and --spec are for --bundle.")
    if out is None:
        if len(tables) != 1 or form == "parquet":
            raise click.UsageError("Name one --table to print as csv or json, or a directory with --out.")
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

    What is here already stays; files that were lost or collected come back. Every file and every row is proven first:
    of a damaged or hostile bundle nothing is taken.

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
