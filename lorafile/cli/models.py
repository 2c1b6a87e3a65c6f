"""Commands about one model outside of a study's plan: evaluate, import, chat, export; and fetch, which downloads."""

from pathlib import Path
from typing import Any

import click

from lorafile.cli.command import (
    PATH,
    command,
    json_option,
    lock_option,
    quiet_option,
    spec_argument,
    state_option,
    study_option,
)
from lorafile.cli.completion import complete_names
from lorafile.cli.terminal import echo, say

DTYPES = click.Choice(["float32", "bfloat16", "float16"])


@command("fetch")
@spec_argument
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also copy each model and data set into this directory, for use in a spec.",
)
@json_option
def fetch(spec: Path, to: Path | None, as_json: bool) -> None:
    """Download and verify models and data for offline use.

    Fetches the revisions in the lock, checks every file, and writes the lock.

    \b
    Example: lora fetch study.toml
    """
    from lorafile.cli.views.models import fetched_json, fetched_line, offline_advice
    from lorafile.lock.lockfile import lock_file
    from lorafile.study.study import Study

    study = Study.load(spec)
    fetched = study.fetch(to, None if as_json else lambda row: say(fetched_line(row)))
    if as_json:
        echo(fetched_json(fetched))
        return
    say(f"Verified; the lock is {lock_file(study.spec)}.")
    for line in offline_advice(fetched, to):
        say(line)


@command("evaluate")
@click.argument("adapter")
@study_option
@state_option
@click.option("--split", "splits", multiple=True, help="Split to evaluate. Repeatable. [default: test]")
@click.option("--no-profile", is_flag=True, help="Do not measure memory and latency.")
@json_option
@quiet_option
def evaluate(
    adapter: str, spec: Path, state: Path | None, splits: tuple[str, ...], no_profile: bool, as_json: bool, quiet: bool
) -> int:
    """Evaluate and profile a checkpoint trained elsewhere.

    ADAPTER is a directory or a hub id.

    \b
    Example: lora evaluate outputs/checkpoint-500 --spec study.toml
    """
    from lorafile.cli.progress import watcher_for
    from lorafile.cli.views.console import console
    from lorafile.cli.views.models import evaluation_json, show_evaluation
    from lorafile.models.evaluate import plan_evaluation
    from lorafile.study.study import Study

    study = Study.load(spec, state)
    out, err = console(quiet), console(quiet or as_json, stderr=True)
    _, plan, _ = plan_evaluation(study.spec, study.state, adapter, splits, not no_profile)
    watcher = watcher_for(plan, err)
    with watcher:
        evaluation = study.evaluate(adapter, splits=splits, profile=not no_profile, watchers=[watcher])
    if as_json:
        echo(evaluation_json(evaluation))
    else:
        show_evaluation(evaluation, out)
    return 130 if evaluation.applied.interrupted else 1 if evaluation.failed else 0


@command("import")
@click.argument("directories", nargs=-1, required=True)
@study_option
@state_option
@click.option("--configuration", help="The configuration of the run, if its files do not identify it.")
@click.option("--seed", type=int, help="The seed of the run, if its files do not state it.")
@click.option("--replace", is_flag=True, help="Replace an existing result.")
@click.option("--dry-run", is_flag=True, help="Show what would be imported without importing it.")
@click.option(
    "--peft-benchmark",
    is_flag=True,
    help="Print result files of PEFT's MetaMathQA comparison as [[reference]] tables for a spec.",
)
@lock_option
def import_runs(
    directories: tuple[str, ...],
    spec: Path,
    state: Path | None,
    dry_run: bool,
    peft_benchmark: bool,
    lock_timeout: float,
    **options: Any,
) -> None:
    """Import finished PEFT or Trainer runs into the state.

    They become runs of the study's configurations, evaluated and reported like those it trains.

    \b
    Example: lora import outputs/r8 outputs/r16 --spec study.toml --dry-run
    """
    if peft_benchmark:
        from lorafile.models.peft_benchmark import reference_tables

        echo(reference_tables(list(directories)), nl=False)
        return
    from lorafile.cli.views.console import console
    from lorafile.cli.views.models import show_imports
    from lorafile.models.import_runs import plan_imports, record_imports
    from lorafile.state import State
    from lorafile.study.study import Study

    study = Study.load(spec, state)
    planned = plan_imports(study.spec, State.read(study.state), list(directories), **options)
    if not dry_run:
        record_imports(study.spec, study.state, planned, lock_timeout)
    show_imports(planned, dry_run, console())


@command("chat")
@click.argument("run", shell_complete=complete_names)
@study_option
@state_option
@click.option("--seed", type=int, help="Seed of the configuration. [default: the first trained one]")
@click.option("--prompt", help="Answer this prompt and exit.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=TEXT",
    help="Value of another column of the prompt template. Repeatable.",
)
@click.option("--max-new-tokens", type=click.IntRange(1), help="Maximum length of an answer, in tokens. [default: 512]")
@click.option("--temperature", type=click.FloatRange(0), help="Sample answers at this temperature. [default: greedy]")
@json_option
def chat(
    run: str,
    spec: Path,
    state: Path | None,
    seed: int | None,
    prompt: str | None,
    columns: tuple[str, ...],
    max_new_tokens: int | None,
    temperature: float | None,
    as_json: bool,
) -> None:
    """Chat with a trained run and its base, side by side.

    RUN is a configuration, an address, a key prefix, or a directory with a checkpoint.

    \b
    Example: lora chat rank/r=16 --seed 42 --spec study.toml
    """
    from lorafile.cli.chat_loop import HELP, converse, show_answers
    from lorafile.cli.views.console import console
    from lorafile.cli.views.models import answers_json
    from lorafile.models.chat import find_chat_target, open_chat
    from lorafile.state import State
    from lorafile.study.study import Study

    filled = {name: text for name, _, text in (column.partition("=") for column in columns)}
    if as_json and prompt is None:
        raise click.UsageError("--json answers a single prompt; also pass --prompt.")
    study = Study.load(spec, state)
    stored = State.read(study.state)
    target = find_chat_target(study.plan(), stored, run, seed)
    out, err = console(), console(stderr=True)
    if prompt is None and err.is_terminal:
        err.print(f"Loading {target.name} …", style="dim", markup=False)
    with open_chat(target, stored, max_new_tokens, temperature) as session:
        if prompt is None:
            if out.is_terminal:
                out.print(f"{target.name} next to its base. {HELP}", style="dim", markup=False)
            converse(session, filled, out)
            return
        text = session.text(prompt, filled)  # before the answer, which the next prompt would hold
        answers = session.ask(prompt, filled, list(session.responders))
        if as_json:
            echo(answers_json(target.name, prompt, text, answers))
        else:
            show_answers(answers, out)


@command("export")
@click.argument("name", metavar="RUN", shell_complete=complete_names)
@click.argument("out", type=PATH)
@study_option
@state_option
@click.option("--seed", type=int, help="Seed of the configuration. [default: the first finished one]")
@click.option("--merged", is_flag=True, help="Merge the adapter into the base and write the full model.")
@click.option("--dtype", type=DTYPES, help="Data type of merged weights. [default: the base's]")
@click.option(
    "--for",
    "server",
    type=click.Choice(["vllm"]),
    help="Check that this server can load the result, and print the command to serve it.",
)
@click.option("--force", is_flag=True, help="Write into the directory even if it is not empty.")
def export(
    name: str,
    out: Path,
    spec: Path,
    state: Path | None,
    **options: Any,
) -> None:
    """Write an adapter or merged model with a model card.

    The result is a Hugging Face directory that PEFT or transformers can load directly.

    RUN is a configuration, an address, or a key prefix.

    \b
    Example: lora export rank/r=16 adapters/r16 --spec study.toml --for vllm
    """
    from lorafile.models.export import ExportOptions
    from lorafile.models.export import export as write
    from lorafile.state import State
    from lorafile.study.study import Study

    study = Study.load(spec, state)
    stored = State.read(study.state)
    done = write(study.plan(), stored, name, out, ExportOptions(**options))
    say(f"Wrote {done.directory}: {done.address}, {', '.join(done.files)}")
    if done.command:
        echo(f"Serve it with: {done.command}")
