"""The environment of a program: what its lock pins, and what is installed. Imports no torch."""

import sys
from collections.abc import Iterable
from pathlib import Path

PROGRAM = "program.json"  # of a result: name -> text of each of the program's files, base64 of what is no text
_IN_RESULTS = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "trl", "axolotl", "unsloth")


def wrong_pins(pins: dict[str, str], versions: dict[str, str], python: str) -> list[str]:
    """Return what of some pinned requirements is not installed: `trl 1.15.0 instead of 1.16.0`.

    :param pins: project -> requirement
    :param versions: project -> version of what is installed; `python` the interpreter's own
    """
    from packaging.requirements import Requirement

    marked = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    wrong = []
    for name, text in pins.items():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate(marked):
            continue
        pinned = next(iter(requirement.specifier)).version
        there = versions.get(name)
        if there is None:
            wrong.append(f"{name} {pinned} is not installed")
        elif not requirement.specifier.contains(there, prereleases=True):
            wrong.append(f"{name} {there} instead of {pinned}")
    return wrong


def wrong_environment(pins: dict[str, str], lock: str, path: str, versions: dict[str, str], python: str) -> str:
    """Return why an environment is not the pinned one, and what to do; nothing where it is.

    :param lock: the file of the pins
    :param path: the environment's interpreter
    """
    wrong = wrong_pins(pins, versions, python)
    if not wrong:
        return ""
    return (
        f"its environment is not the one that {lock} pins: {'; '.join(wrong[:5])}. Install {lock} into the environment "
        f"of {path}, or change the lock."
    )


def in_result(versions: dict[str, str], python: str) -> dict[str, str | None]:
    """Return what a result carries of the environment of a program, in the place of the worker's."""
    known = {name: versions.get(name) for name in _IN_RESULTS[:4]}
    return {**known, **{n: versions[n] for n in _IN_RESULTS[4:] if n in versions}, "python": python}


def installed_in(python: Path) -> tuple[dict[str, str], str] | None:
    """Return what is installed next to an interpreter, and its version, without running it; None where that is unclear.

    :param python: `bin/python` of a virtual environment or of an installation
    """
    prefix = python.absolute().parent.parent
    places = sorted(prefix.glob("lib/python3.*/site-packages"))
    if not python.exists() or len(places) != 1:
        return None
    if any(places[0].glob("*.pth")) and _adds_directories(places[0]):
        return None
    version = places[0].parent.name.removeprefix("python")
    config = prefix / "pyvenv.cfg"
    if config.is_file():
        lines = [line.partition("=") for line in config.read_text(encoding="utf-8").splitlines()]
        settings = {name.strip(): value.strip() for name, _, value in lines}
        if settings.get("include-system-site-packages") == "true":
            return None
        version = settings.get("version", settings.get("version_info", version))
    return _versions(places), version


def _adds_directories(place: Path) -> bool:
    """Return whether a file there makes other directories count as installed."""
    for file in place.glob("*.pth"):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if any(line.strip() and not line.startswith(("import ", "import\t", "#")) for line in lines):
            return True
    return False


def own() -> tuple[dict[str, str], str]:
    """Return what is installed where lora itself runs, and the version of its Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    return _versions(map(Path, reversed(sys.path))), version  # what comes first is what is imported


def _versions(places: Iterable[Path]) -> dict[str, str]:
    """Return project -> version by the names of the directories in which installers describe what they installed."""
    found = {}
    for place in places:
        for entry in place.glob("*.dist-info"):
            name, _, version = entry.name.removesuffix(".dist-info").rpartition("-")
            found[name.lower().replace("_", "-")] = version
    return found
