"""`lora clusters`: the machines that studies may run on."""

from pathlib import Path

import click

from lorafile.cli.command import command, group, json_option, study_option
from lorafile.cli.terminal import echo, say


@group("clusters")
def clusters_group() -> None:
    """List the clusters of lora.toml, and check them.

    \b
    Example: lora clusters list
    """


@command("list", clusters_group)
@study_option
@json_option
def list_(spec: Path, as_json: bool) -> None:
    """List clusters with their devices and prices.

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


@command("check", clusters_group)
@click.argument("name")
@study_option
@click.option(
    "--timeout", type=click.FloatRange(1), default=300.0, show_default=True, help="Seconds to wait for the worker."
)
@click.option("--write", is_flag=True, help="Add the device to lora.toml if the cluster lists none.")
@json_option
def check(name: str, spec: Path, timeout: float, write: bool, as_json: bool) -> None:
    """Start a worker on a cluster and show its environment.

    Shows device, memory, driver and library versions; --write adds the device to lora.toml.

    \b
    Example: lora clusters check lab --write
    """
    from lorafile.apply.cluster_check import first_words
    from lorafile.cli.views.clusters import check_json, device_table, show_check
    from lorafile.cli.views.console import console
    from lorafile.files.tasks import task
    from lorafile.plan.clusters.config import add_device, file_without_devices, find_cluster

    cluster = find_cluster(name, spec)
    file = file_without_devices(name, spec) if write else None
    with task(f"Waiting for a worker of {name}"):
        hello = first_words(cluster, timeout)
    table = device_table(name, hello)
    if as_json:
        echo(check_json(hello))
    else:
        show_check(name, cluster, hello, table, console())
    if file is not None:
        add_device(file, table)
        if not as_json:
            say(f"Added to {file}.")
