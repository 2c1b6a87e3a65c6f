"""`lora state export` and `import`: tables for other tools, bundles for other states."""

from pathlib import Path

import click

from lorafile.cli.command import command, spec_option, state_option
from lorafile.cli.state import lock_option, state_group
from lorafile.cli.terminal import say


@command("export", state_group)
@click.argument("names", nargs=-1)
@click.option("--bundle", type=click.Path(path_type=Path), help="Write rows and files of NAMES as one tar file.")
@click.option("--format", "form", type=click.Choice(["csv", "json", "parquet"]), default="csv", show_default=True)
@click.option(
    "--table", "tables", type=click.Choice(["runs", "metrics", "curves"]), multiple=True, help="Which tables."
)
@click.option("--out", type=click.Path(path_type=Path), help="Directory for the tables. [default: print one]")
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
) -> int:
    """Write tables as CSV, JSON or Parquet, or a bundle with adapters to hand to somebody else.

    A bundle holds what NAMES mean (runs, configurations, patterns; everything where none is given), all that it was
    made from, the prepared examples among it, and the files. A name that means different runs in several studies needs
    --spec, or the key; a pattern takes what fits in all of them.

    \b
    Example: lora state export --format parquet --out tables
    Example: lora state export "rank/*" --bundle rank.tar
    """
    from lorafile.cli.views import plan, state_transfer
    from lorafile.plan.names import names_of
    from lorafile.state import State
    from lorafile.state.transfer.exporter import TABLES, Bundled, export_bundle, table_text, write_tables
    from lorafile.study.study import study_and_state

    study, directory = study_and_state(spec, state)
    if bundle is not None:
        if tables or out is not None:
            raise click.UsageError("--bundle writes one file with everything; leave out --table and --out.")
        study_spec = study.spec if study else None

        def write(stored: State) -> Bundled:
            return export_bundle(stored, names, bundle, names_of(stored, study_spec) if names else None)

        bundled = State.snapshot(directory, write)
        state_transfer.show_bundled(bundled, plan.console())
        return 0
    if names or spec is not None:
        raise click.UsageError("Tables hold every run; NAMES and --spec are for --bundle.")
    if out is None:
        if len(tables) != 1 or form == "parquet":
            raise click.UsageError("Name one --table to print as csv or json, or a directory with --out.")
        click.echo(State.snapshot(directory, lambda stored: table_text(stored, tables[0], form)), nl=False)
        return 0
    for file in State.snapshot(directory, lambda stored: write_tables(stored, tables or TABLES, form, out)):
        say(f"Wrote {file}")
    return 0


@command("import", state_group)
@click.argument("source", type=click.Path(path_type=Path))
@state_option
@lock_option
def import_(source: Path, state: Path | None, lock_timeout: float) -> int:
    """Merge a bundle, or another state's directory, into this state.

    What is here already stays; files that were lost or collected come back. Every file and every row is proven first:
    of a damaged or hostile bundle nothing is taken.

    \b
    Example: lora state import rank.tar
    """
    from lorafile.cli.views import plan, state_transfer
    from lorafile.state.transfer.importer import import_state
    from lorafile.study.study import state_directory

    state_transfer.show_merged(import_state(source, state_directory(state), lock_timeout), plan.console())
    return 0
