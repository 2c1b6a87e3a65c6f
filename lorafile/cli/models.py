"""Commands about one model outside of a study's plan: evaluate, import, chat; and fetch, which brings models here."""

import json
from pathlib import Path

import click

from lorafile.cli.command import command, json_option, quiet_option, spec_argument, state_option
from lorafile.cli.terminal import echo


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
    from lorafile.cli.views.models import fetched_json, fetched_line, offline_advice
    from lorafile.lock.lockfile import lock_file
    from lorafile.study.study import Study

    study = Study.load(spec)
    found = study.fetch(to, None if as_json else lambda fetched: echo(fetched_line(fetched)))
    if as_json:
        echo(json.dumps(fetched_json(found), indent=2))
        return 0
    echo(f"Verified; the lock is {lock_file(study.spec)}.")
    for line in offline_advice(found, to):
        echo(line)
    return 0


@command("evaluate")
@click.argument("adapter")
@click.option("--spec", type=click.Path(path_type=Path), default="study.toml", help="Whose model, data and metrics.")
@state_option
@click.option("--split", "splits", multiple=True, help="Which split; may be given again. [default: test]")
@click.option("--no-profile", is_flag=True, help="Leave out memory and latency.")
@json_option
@quiet_option
def evaluate(
    adapter: str, spec: Path, state: Path | None, splits: tuple[str, ...], no_profile: bool, as_json: bool, quiet: bool
) -> int:
    """Evaluate and profile a checkpoint that somebody else trained: a directory, or a hub id.

    \b
    Example: lora evaluate outputs/checkpoint-500 --spec study.toml
    """
    from lorafile.cli.progress import Bars, Lines
    from lorafile.cli.views.console import console
    from lorafile.cli.views.models import evaluation_json, show_evaluation
    from lorafile.models.evaluate import plan_evaluation
    from lorafile.study.study import Study

    study = Study.load(spec, state)
    out, err = console(quiet), console(quiet or as_json, stderr=True)
    _, plan, _ = plan_evaluation(study.spec, study.state, adapter, splits, not no_profile)
    watcher = (Bars if err.is_terminal else Lines)(plan, err)
    with watcher:
        found = study.evaluate(adapter, splits=splits, profile=not no_profile, watchers=[watcher])
    if as_json:
        echo(json.dumps(evaluation_json(found), indent=2))
    else:
        show_evaluation(found, out)
    return 130 if found.applied.interrupted else 1 if found.failed else 0


@command("import")
@click.argument("directories", nargs=-1, required=True)
@click.option("--spec", type=click.Path(path_type=Path), default="study.toml", help="Whose configurations they are.")
@state_option
@click.option("--configuration", help="Which configuration, where the files leave it open or training differs.")
@click.option("--seed", type=int, help="Which of the study's seeds, where the files do not say.")
@click.option("--replace", is_flag=True, help="Take it in the place of a result that is there.")
@click.option("--dry-run", is_flag=True, help="Only say what would become what.")
@click.option("--lock-timeout", type=float, default=0.0, help="Seconds to wait for another apply on the same state.")
def import_runs(
    directories: tuple[str, ...],
    spec: Path,
    state: Path | None,
    configuration: str | None,
    seed: int | None,
    replace: bool,
    dry_run: bool,
    lock_timeout: float,
) -> int:
    """Take finished PEFT or Trainer output directories into the state, as a study's own configurations.

    \b
    Example: lora import outputs/r8 outputs/r16 --spec study.toml --dry-run
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.models import show_imports
    from lorafile.models.import_runs import plan_imports, record_imports
    from lorafile.state import State
    from lorafile.study.study import Study

    study = Study.load(spec, state)
    planned = plan_imports(study.spec, State.read(study.state), list(directories), configuration, seed, replace)
    if not dry_run:
        record_imports(study.spec, study.state, planned, lock_timeout)
    show_imports(planned, dry_run, console())
    return 0


@command("chat")
@click.argument("spec", type=click.Path(path_type=Path))
@click.argument("run")
@state_option
@click.option("--seed", type=int, help="Which seed of a configuration. [default: the first that is trained]")
@click.option("--prompt", help="Answer this once, and end.")
@click.option("--column", "columns", multiple=True, metavar="NAME=TEXT", help="Fills another column of the prompt.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="The most tokens of an answer. [default: the spec's]")
@click.option("--temperature", type=click.FloatRange(0), help="Draw answers; without it they are greedy.")
@json_option
def chat(
    spec: Path,
    run: str,
    state: Path | None,
    seed: int | None,
    prompt: str | None,
    columns: tuple[str, ...],
    max_new_tokens: int | None,
    temperature: float | None,
    as_json: bool,
) -> int:
    """Chat with a trained run, base and tuned side by side.

    RUN is a configuration, an address, the beginning of a key, or a directory with a checkpoint.

    \b
    Example: lora chat study.toml rank/r=16 --seed 42
    """
    from lorafile.cli.chat_loop import HELP, converse, show_answers
    from lorafile.cli.views.console import console
    from lorafile.cli.views.models import answers_json
    from lorafile.models.chat import find_chat_target, open_chat
    from lorafile.state import State
    from lorafile.study.study import Study

    filled = {name: text for name, _, text in (column.partition("=") for column in columns)}
    if as_json and prompt is None:
        raise click.UsageError("--json answers one prompt: pass --prompt, too.")
    study = Study.load(spec, state)
    stored = State.read(study.state)
    target = find_chat_target(study.plan(), stored, run, seed)
    out, err = console(), console(stderr=True)
    if prompt is None and err.is_terminal:
        err.print(f"Loading {target.name} …", style="dim", markup=False)
    with open_chat(target, stored, max_new_tokens, temperature) as session:
        if prompt is None:
            if out.is_terminal:
                out.print(f"{target.name} beside its base. {HELP}", style="dim", markup=False)
            converse(session, filled, out)
        elif as_json:
            text = session.text(prompt, filled)
            answers = session.ask(prompt, filled, list(session.responders))
            echo(json.dumps(answers_json(target.name, prompt, text, answers), indent=2))
        else:
            show_answers(session.ask(prompt, filled, list(session.responders)), out)
    return 0
