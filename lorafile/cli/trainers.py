"""`lora trainer`: the programs that train in the place of the built-in loop."""

from dataclasses import asdict
from pathlib import Path

import click

from lorafile.cli.command import command, group, json_option, state_option, study_option
from lorafile.cli.terminal import echo, say


@group("trainer")
def trainer_group() -> None:
    """Check programs that train.

    \b
    Example: lora trainer check trl-sft
    """


@command("check", trainer_group)
@click.argument("name")
@study_option
@state_option
@json_option
def check(name: str, spec: Path, state: Path | None, as_json: bool) -> int:
    """Check that a trainer uses seed, rate and data, and resumes.

    Runs the program several times on 64 train rows and compares it with the built-in loop. The result is stored next
    to the state, and plans show it.

    \b
    Example: lora trainer check trl-sft --spec study.toml
    """
    from lorafile.cli.views.console import json_text
    from lorafile.files.tasks import task
    from lorafile.state import State
    from lorafile.study.study import Study
    from lorafile.study.trainer_check import check_trainer

    study = Study.load(spec, state)
    plan = study.plan()
    findings = []
    with task(f"Checking {name}"):
        for finding in check_trainer(plan, State.read(study.state), name):
            findings.append(finding)
            if not as_json:
                say(f"{'✓' if finding.holds else '✗'} {finding.text}")
    if as_json:
        echo(json_text({"trainer": name, "findings": [asdict(finding) for finding in findings]}))
    return 0 if all(finding.holds for finding in findings) else 1
