"""The functions that give adapters their initial values: their files, read once, and what of them is in a key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.errors import NodeError
from lorafile.files.local_modules import code_digest, defined_names, local_modules, parsed
from lorafile.specs import Configuration, Spec
from lorafile.specs.error_messages import suggestion
from lorafile.units import plural

INIT = "init_lora_weights"


@dataclass(frozen=True)
class InitFunction:
    """A function as its file was when the plan was made.

    :ivar file: the file's name relative to the spec
    :ivar digest: sha256 of the file, and of the modules next to it that it imports
    :ivar source: what the file says
    :ivar modules: dotted name -> name and text of each of these; of a package without `__init__.py`, its folder
    """

    file: str
    function: str
    digest: str
    source: str
    modules: dict[str, tuple[str, str]]

    @property
    def line(self) -> str:
        """What is run, for a person who decides whether it should be."""
        files = plural(1 + len(self.modules), "file")
        return f"{self.function} of {self.file} (sha256 {self.digest[:12]}…, {files})"

    @property
    def section(self) -> dict[str, str]:
        """What of it decides a result, as it stands in a key."""
        return {"function": self.function, "digest": self.digest}

    @property
    def code(self) -> dict[str, Any]:
        """What a worker runs, on this machine or another."""
        modules = {name: list(about) for name, about in self.modules.items()}
        return {"file": self.file, "function": self.function, "source": self.source, "modules": modules}


def init_functions(spec: Spec) -> dict[tuple[str, str], InitFunction]:
    """Return (file, function) -> each function that some configuration of a spec starts with.

    :raises SpecError: when there is no such file, it is no Python, it has no such function, or an import of its cannot
        be followed
    """
    functions: dict[tuple[str, str], InitFunction] = {}
    for configuration in spec.named.values():
        named = named_function(configuration)
        if named and named not in functions:
            with spec.located(f"lora.{INIT}"):
                functions[named] = _read(*named, spec.file.parent.resolve())
    return functions


def named_function(configuration: Configuration) -> tuple[str, str] | None:
    """Return the file and the function that a configuration starts with, if it does."""
    word = (configuration.adapter or {}).get(INIT)
    return (word["file"], word["function"]) if isinstance(word, dict) else None


def _read(name: str, function: str, base: Path) -> InitFunction:
    file = base / name
    if not file.is_file():
        beside = [other.name for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise NodeError(f"lora.{INIT}: there is no file {name} next to the spec{suggestion(file.name, beside)}")
    content, tree = parsed(file)
    defined = defined_names(tree)
    if function not in defined:
        raise NodeError(f"lora.{INIT}: {name} defines no function {function}{suggestion(function, defined)}")
    modules = local_modules(tree, file, base)
    texts = {
        dotted: (place.name, place.read_text(encoding="utf-8")) if place.suffix == ".py" else ("", "")
        for dotted, place in modules.items()
    }
    try:
        return InitFunction(name, function, code_digest(content, modules), content.decode("utf-8"), texts)
    except UnicodeDecodeError as error:
        raise NodeError(f"lora.{INIT}: {name} is not UTF-8 text (byte {error.start})") from error
