"""`lora export`: a finished adapter, or what is merged from it, as a directory that others load."""

from pathlib import Path

import click

from lorafile.cli.command import command, spec_argument, state_option
from lorafile.cli.terminal import echo


@command("export")
@spec_argument
@click.argument("name", metavar="RUN")
@click.argument("out", type=click.Path(path_type=Path))
@state_option
@click.option("--seed", type=int, help="Which replicate of a configuration. [default: its first finished one]")
@click.option("--merged", is_flag=True, help="Merge the adapter into its base and write the whole model.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type of merged weights. [default: the base's]",
)
@click.option("--for", "server", type=click.Choice(["vllm"]), help="Check that it loads there, and show the command.")
@click.option("--force", is_flag=True, help="Write into a directory that is not empty.")
def export(
    spec: Path,
    name: str,
    out: Path,
    state: Path | None,
    seed: int | None,
    merged: bool,
    dtype: str | None,
    server: str | None,
    force: bool,
) -> int:
    """Write a finished adapter, or the merged model, as a Hugging Face directory with a model card.

    RUN is a configuration, an address, or the beginning of a key.

    \b
    Example: lora export study.toml rank/r=16 adapters/r16 --for vllm
    """
    from lorafile.models.export import export as write
    from lorafile.state import State
    from lorafile.study.study import Study

    study = Study.load(spec, state)
    stored = State.read(study.state)
    done = write(study.plan(), stored, name, out, seed=seed, merged=merged, dtype=dtype, server=server, force=force)
    echo(f"Wrote {done.directory}: {done.address}, {', '.join(done.files)}")
    if done.command:
        echo(f"Serve it with: {done.command}")
    return 0
