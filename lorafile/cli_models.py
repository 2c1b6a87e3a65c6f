"""Commands about one model outside of a study's plan: evaluate, import, chat; and fetch, which brings models here."""

import json
from pathlib import Path

import click

from lorafile.command import command, json_option, spec_argument


@command("fetch")
@spec_argument
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also put each model and data set there, as a plain directory that a spec can name.",
)
@json_option
def fetch(spec: Path, to: Path | None, as_json: bool) -> int:
    """Download models and data at the lock's revisions, for machines without a network; verify them; write the lock.

    \b
    Example: lora fetch study.toml
    """
    from lorafile import views_models
    from lorafile.lockfile import lock_file
    from lorafile.study import Study

    study = Study.load(spec)
    found = study.fetch(to, None if as_json else lambda fetched: click.echo(views_models.fetched_line(fetched)))
    if as_json:
        click.echo(json.dumps(views_models.fetched_json(found), indent=2))
        return 0
    click.echo(f"Verified; the lock is {lock_file(study.spec)}.")
    for line in views_models.offline_advice(found, to):
        click.echo(line)
    return 0
