"""The command line: each command parses, calls, and hands what came to a view."""

import json
from pathlib import Path

import click

from lorafile.cli.command import PATH, command, json_option, main, rehash_option, spec_argument, state_option
from lorafile.cli.completion import complete_presets, script
from lorafile.cli.terminal import echo, echo_error, say
from lorafile.errors import LoraError
from lorafile.units import listing, plural

__all__ = ["main"]


@command("init")
@click.argument("spec", type=PATH, default="study.toml")
@click.option(
    "--preset",
    shell_complete=complete_presets,
    help="Start from a preset: rank_sweep, module_sweep, quantization_sweep, placement, lora_vs_full, hyperparameters.",
)
@click.option("--model", help="A hub id or a directory. [default: the built-in model]")
@click.option("--data", help="A data file, a directory, or a hub id. [default: the built-in task]")
@click.option("--force", is_flag=True, help="Overwrite an existing spec.")
def init(spec: Path, preset: str | None, model: str | None, data: str | None, force: bool) -> None:
    """Write a first spec, from a preset, your model and your data.

    What was detected in the model and the data, and why a metric was chosen, is printed and written as comments.

    \b
    Example: lora init --preset rank_sweep --model microsoft/phi-2 --data rows.jsonl
    """
    from lorafile.files.atomic import write_text
    from lorafile.study.init import first_spec

    if spec.exists() and not force:
        raise LoraError(f"{spec} is there already; name another file, or pass --force to write over it.")
    first = first_spec(preset, model, data)
    write_text(spec, first.text)
    say("\n".join([*first.guesses, f"Wrote {spec}. Next: lora plan {spec}"]))


@command("validate")
@click.argument("specs", nargs=-1, type=PATH)
def validate(specs: tuple[Path, ...]) -> int:
    """Check specs with their models and data.

    Every mistake is reported with its file and line. Nothing is downloaded: models and data on the hub are checked as
    far as the lock describes them.

    \b
    Example: lora validate study.toml
    """
    from lorafile.apply.tracking.destinations import missing_libraries
    from lorafile.errors import SpecError
    from lorafile.study.validation import check

    wrong = 0
    for file in specs or (Path("study.toml"),):
        spec, mistakes, unseen = check(file)
        for mistake in mistakes:
            wrong = SpecError.exit_code
            echo_error(mistake)
        if spec is None or mistakes:
            continue
        rest = f"; not looked at, because the lock does not have it yet: {listing(unseen)}" if unseen else ""
        say(f"{file}: good, {plural(len(spec.configurations), 'configuration')}{rest}")
        for warning in missing_libraries(spec):
            echo_error(f"{file}: warning: {warning}")
    return wrong


@command("schema")
def schema() -> None:
    """Print the JSON schema of specs, for editors.

    \b
    Example: lora schema > study.schema.json
    """
    from lorafile.specs.schema import json_schema

    echo(json.dumps(json_schema(), indent=2))


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands in your shell.

    It completes commands, options and presets, and the configurations and runs of study.toml or of the spec that the
    command line names. Add its line to your shell's start-up file:

    \b
      eval "$(lora completion bash)"    in ~/.bashrc
      eval "$(lora completion zsh)"     in ~/.zshrc, after compinit
      lora completion fish | source     in ~/.config/fish/config.fish

    \b
    Example: lora completion bash >> ~/.bash_completion
    """
    echo(script(shell, main))


@command("lock")
@spec_argument
@rehash_option
def lock(spec: Path, rehash: bool) -> None:
    """Resolve models and data, and write the lock file.

    \b
    Example: lora lock study.toml
    """
    from lorafile.lock.lockfile import lock_file
    from lorafile.study.study import Study

    study = Study.load(spec)
    written = study.lock(rehash=rehash)
    say(f"Wrote {lock_file(study.spec)}: {len(written.models)} models, {len(written.data)} data sets.")


@command("report")
@click.argument("specs", nargs=-1, type=PATH)
@state_option
@click.option(
    "--out",
    type=PATH,
    help="Output directory. [default: report.path of the spec; for several specs, ./report]",
)
@click.option("--check", "check_only", is_flag=True, help="Only check the claims; exit 6 if one no longer holds.")
@click.option("--watch", is_flag=True, help="Update the page while an apply runs, until it ends or Ctrl-C.")
@json_option
def report(
    specs: tuple[Path, ...], state: Path | None, out: Path | None, check_only: bool, watch: bool, as_json: bool
) -> int:
    """Write the report: report.html, RESULTS.md, results.tex.

    Drawn from what is finished, while an apply runs or after it. With --json every figure is printed instead.

    Several specs make one page that compares their studies.

    \b
    Example: lora report study.toml
    """
    from lorafile.cli import report as reporting
    from lorafile.study.study import Study

    if check_only and (out is not None or len(specs) > 1):
        raise click.UsageError("--check writes no report, and checks the claims of one spec; leave the rest out.")
    if watch and (check_only or as_json):
        raise click.UsageError("--watch writes the page while a study runs; leave out --check and --json.")
    studies = [Study.load(spec, state) for spec in specs or (Path("study.toml"),)]
    if watch:
        return reporting.follow(studies, out)
    if check_only:
        return reporting.check_claims(studies[0], as_json)
    return reporting.print_figures(studies) if as_json else reporting.write(studies, out)


from lorafile.cli import apply, clusters, diff, models, plan, show  # noqa: E402, F401  (commands)
from lorafile.cli import data as cli_data  # noqa: E402, F401  (commands)
from lorafile.cli import remote as cli_remote  # noqa: E402, F401  (commands)
from lorafile.cli import state as cli_state  # noqa: E402, F401  (commands)
