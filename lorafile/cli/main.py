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
    """Write a first spec from a preset, your model and your data.

    Prints what it detected in the model and the data and why it chose a metric, and adds this to the spec as comments.

    \b
    Example: lora init --preset rank_sweep --model microsoft/phi-2 --data rows.jsonl
    """
    from lorafile.files.atomic import write_text
    from lorafile.study.init import first_spec

    if spec.exists() and not force:
        raise LoraError(f"{spec} already exists. Pass another file name, or --force to overwrite it.")
    first = first_spec(preset, model, data)
    write_text(spec, first.text)
    say("\n".join([*first.guesses, f"Wrote {spec}. Next: lora plan {spec}"]))


@command("validate")
@click.argument("specs", nargs=-1, type=PATH)
def validate(specs: tuple[Path, ...]) -> int:
    """Check specs, including their models and data.

    Reports every mistake with its file and line. Downloads nothing: models and data on the hub are checked as far as
    the lock describes them.

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
        rest = f"; not checked, because it is not in the lock yet: {listing(unseen)}" if unseen else ""
        say(f"{file}: valid, {plural(len(spec.configurations), 'configuration')}{rest}")
        for warning in missing_libraries(spec):
            echo_error(f"{file}: warning: {warning}")
    return wrong


@command("schema")
def schema() -> None:
    """Print the JSON schema of specs for editors.

    \b
    Example: lora schema > study.schema.json
    """
    from lorafile.specs.schema import json_schema

    echo(json.dumps(json_schema(), indent=2))


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell completion script.

    Completes commands, options and presets, and the configurations and runs of study.toml or of the spec on the
    command line. Add the line for your shell to its startup file:

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
    """Resolve models and data and write the lock file.

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
    help="Output directory. [default: the spec's report.path; for several specs, ./report]",
)
@click.option("--check", "check_only", is_flag=True, help="Only check the claims; exit 6 if any no longer holds.")
@click.option("--watch", is_flag=True, help="Update the report while an apply runs, until it ends or you press Ctrl-C.")
@json_option
def report(
    specs: tuple[Path, ...], state: Path | None, out: Path | None, check_only: bool, watch: bool, as_json: bool
) -> int:
    """Write the report: report.html, RESULTS.md, results.tex.

    Uses the results finished so far, during or after an apply. With --json, prints every number instead.

    Several specs produce one report that compares their studies.

    \b
    Example: lora report study.toml
    """
    from lorafile.cli import report as reporting
    from lorafile.study.study import Study

    if check_only and (out is not None or len(specs) > 1):
        raise click.UsageError(
            "--check writes no report and checks the claims of a single spec; omit the other arguments."
        )
    if watch and (check_only or as_json):
        raise click.UsageError("--watch cannot be combined with --check or --json.")
    studies = [Study.load(spec, state) for spec in specs or (Path("study.toml"),)]
    if watch:
        return reporting.follow(studies, out)
    if check_only:
        return reporting.check_claims(studies[0], as_json)
    return reporting.print_figures(studies) if as_json else reporting.write(studies, out)


from lorafile.cli import apply, clusters, diff, methods, models, plan, show, trainers  # noqa: E402, F401  (commands)
from lorafile.cli import data as cli_data  # noqa: E402, F401  (commands)
from lorafile.cli import remote as cli_remote  # noqa: E402, F401  (commands)
from lorafile.cli import state as cli_state  # noqa: E402, F401  (commands)
