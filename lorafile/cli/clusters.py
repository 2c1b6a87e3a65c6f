"""`lora clusters`: the machines that studies may run on."""

from pathlib import Path

import click

from lorafile.cli.command import PATH, command, json_option, main
from lorafile.cli.terminal import echo

spec_option = click.option(
    "--spec", type=PATH, default=Path("study.toml"), show_default=True, help="The spec that lora.toml stands next to."
)


@main.group("clusters")
def clusters_group() -> None:
    """Show the clusters of lora.toml, and whether they answer.

    \b
    Example: lora clusters list
    """


@command("list", clusters_group)
@spec_option
@json_option
def list_(spec: Path, as_json: bool) -> None:
    """List clusters with their devices, prices and where they are described.

    \b
    Example: lora clusters list --json
    """
    from lorafile.cli.views.clusters import clusters_json, show_clusters
    from lorafile.cli.views.console import console
    from lorafile.plan.clusters.config import clusters, files

    known = clusters(spec)
    if as_json:
        echo(clusters_json(known))
    else:
        show_clusters(known, files(spec), console())
