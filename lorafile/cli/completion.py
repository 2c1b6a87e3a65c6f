"""What a shell completes: presets, and the configurations and runs of a spec."""

import os
from pathlib import Path
from typing import Any

import click

from lorafile.errors import LoraError

_DEFAULT = "study.toml"
_MOST = 5000  # names


def complete_presets(_context: click.Context, _parameter: click.Parameter, beginning: str) -> list[str]:
    """Return the presets that begin so."""
    from lorafile.specs.catalogue import preset_names

    return [name for name in preset_names() if name.startswith(beginning)]


def complete_names(context: click.Context, _parameter: click.Parameter, beginning: str) -> list[str]:
    """Return the configurations and runs that begin so, of the spec that the command line names, or of study.toml.

    Runs are proposed once their configuration is written whole: a study has several of each.
    """
    from lorafile.specs import load

    try:
        spec = load(_spec_of(context.params))
    except (LoraError, OSError):
        return []  # the command itself says what is wrong
    names = [each.name for each in spec.configurations]
    seeds = spec.tables.study.seeds
    runs = [f"{name}/seed={seed}" for name in names if beginning.startswith(name) for seed in seeds]
    return [name for name in (*names, *runs) if name.startswith(beginning)][:_MOST]


def script(shell: str, program: click.Command) -> str:
    """Return the script that a shell reads at its start."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise LoraError(f"Completion is not available for {shell}.")
    made = kind(program, {}, "lora", "_LORA_COMPLETE")
    return made.source_template % made.source_vars()  # `source()` would ask the bash of this machine for its version


def _spec_of(parameters: dict[str, Any]) -> Path:
    """Return the spec of a command line; click drops arguments where the option to complete has no value yet."""
    spec = parameters.get("spec") or parameters.get("specs")
    first = spec[0] if isinstance(spec, tuple) else spec
    words = os.environ.get("COMP_WORDS", "").split()[:-1]
    written = next((word for word in words if word.endswith(".toml")), None)
    return Path(first if first and str(first) != _DEFAULT else written or _DEFAULT)
