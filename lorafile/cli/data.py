"""Commands about data: what a study's examples look like to the model, and which sets are ready to name."""

import json
from pathlib import Path

import click

from lorafile.cli.command import command, group, json_option, spec_argument
from lorafile.cli.terminal import echo


@group("data")
def data() -> None:
    """Look at data before training on them.

    \b
    Example: lora data show study.toml
    """


@command("show", data)
@spec_argument
@click.option("--split", default="train", show_default=True, help="Split to show.")
@click.option("--rows", type=click.IntRange(0), default=3, show_default=True, help="Number of examples to show.")
@click.option("--configuration", help="Configuration whose data to show, if the data vary in the study.")
@json_option
def show(spec: Path, split: str, rows: int, configuration: str | None, as_json: bool) -> None:
    """Show examples as the model sees them, lengths, and leaks.

    Prints each example as rendered by the template, with the supervised part marked, followed by lengths, duplicates,
    and examples that occur in more than one split.

    \b
    Example: lora data show study.toml --split test --rows 5
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.data import show_data
    from lorafile.study.data_preview import preview
    from lorafile.study.study import Study

    shown = preview(Study.load(spec), split, rows, configuration)
    if as_json:
        echo(json.dumps(shown, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show_data(shown, console())


@command("list", data)
@json_option
def list_(as_json: bool) -> None:
    """List well-known data sets with their formats and licences.

    \b
    Example: lora data list
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.data import show_catalogue
    from lorafile.specs.catalogue import catalogue

    if as_json:
        echo(json.dumps({"format_version": "1.0", "sets": catalogue()}, indent=2, ensure_ascii=False))
    else:
        show_catalogue(catalogue(), console())
