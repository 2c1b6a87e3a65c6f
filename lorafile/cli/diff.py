"""`lora diff` and `lora graph`: an experiment as it is reviewed before anybody pays for it."""

from pathlib import Path

import click

from lorafile.cli.command import PATH, command, json_option, markdown_option, price_option, spec_argument, state_option
from lorafile.cli.terminal import echo


@command("diff")
@click.argument("files", nargs=-1, type=PATH)
@state_option
@click.option("--git", "revision", metavar="REV", help="Compare with the spec at this git revision.")
@price_option
@json_option
@markdown_option
def diff(
    files: tuple[Path, ...],
    state: Path | None,
    revision: str | None,
    hourly: float | None,
    as_json: bool,
    markdown: bool,
) -> None:
    """Compare two specs or plans: the changes and their cost.

    Shows what a change adds, removes and renames, and what applying it would run. Writes nothing. FILES are two specs
    or two saved plans. With --git, compares one spec (default: study.toml) with its version at a revision.

    \b
    Example: lora diff --git main study.toml
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.diff import diff_json, diff_markdown, show_diff
    from lorafile.study import diff_inputs

    if len(files) > 1 if revision is not None else len(files) != 2:
        raise click.UsageError("Pass two files (lora diff old.toml new.toml), or one file with --git REV.")
    if revision is not None:
        changes = diff_inputs.since(revision, files[0] if files else Path("study.toml"), state, hourly)
    else:
        changes = diff_inputs.between(files[0], files[1], state, hourly)
    if as_json or markdown:
        echo(diff_json(changes) if as_json else diff_markdown(changes), nl=as_json)
    else:
        show_diff(changes, console())


@command("graph")
@spec_argument
@state_option
@click.option("--format", "kind", type=click.Choice(["mermaid", "dot"]), default="mermaid", help="[default: mermaid]")
@click.option("--full", is_flag=True, help="Draw every node.")
def graph(spec: Path, state: Path | None, kind: str, full: bool) -> None:
    """Draw a study's graph for Mermaid or Graphviz.

    Shows each node with its inputs and whether it is finished.

    \b
    Example: lora graph study.toml --format dot | dot -Tsvg > study.svg
    """
    from lorafile.cli.views import graph as drawing
    from lorafile.study.study import Study

    drawn = drawing.drawing(Study.load(spec, state).plan(), full)
    echo(drawing.mermaid(drawn) if kind == "mermaid" else drawing.dot(drawn))
