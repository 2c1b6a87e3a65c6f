"""Presets: complete studies by name, in which only model and data have to be changed."""

from importlib.resources import files

from lorafile.errors import LoraError
from lorafile.specs.error_messages import suggestion

_PRESETS = files("lorafile.specs") / "presets"


def names() -> list[str]:
    """Return the names of all presets."""
    return sorted(file.name.removesuffix(".toml") for file in _PRESETS.iterdir() if file.name.endswith(".toml"))


def text(name: str) -> str:
    """Return a preset as TOML text.

    :raises PresetError: when there is none of that name
    """
    known = names()
    if name not in known:
        raise PresetError(name, known)
    return (_PRESETS / f"{name}.toml").read_text(encoding="utf-8")


class PresetError(LoraError):
    """A command line names a preset that does not exist."""

    exit_code = 64

    def __init__(self, name: str, known: list[str]) -> None:
        close = suggestion(name.replace("-", "_"), known)
        super().__init__(f'There is no preset "{name}"{close or "."} Presets: {", ".join(known)}.')
