"""A planned stage as a block at the end of the spec file: added, never written over what is there."""

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile import specs
from lorafile.errors import SpecError, StalePlan
from lorafile.files.atomic import write_text
from lorafile.study.study import Study

if TYPE_CHECKING:
    from lorafile.analysis.seed_planning import Resolution


def resolve(study: Study, most: int | None) -> "tuple[Study, Resolution | None]":
    """Return the study with the stage that decides what is open, and the stage; writes nothing.

    :param most: seeds of the stage; None: none is asked for
    :raises SpecError: when the spec has no margin, keeps no alpha, or cannot take a further block
    """
    if most is None:
        return study, None
    from lorafile.analysis.seed_planning import resolution

    found = resolution(study.gather(), study.spec, most)
    return (Study(_with(study, block(found)), study.state) if found.seeds else study), found


def block(found: "Resolution") -> str:
    """Return a stage as TOML, with a comment that says when, why and for which look."""
    decided = sum(one.planned for one in found.undecided)
    comparisons = "comparison" if found.comparisons == 1 else "comparisons"
    undecided = f"{len(found.undecided)} of {found.comparisons} {comparisons} on {found.metric}"
    shares = f"{100 * found.alpha:.3g} %, which leaves {100 * found.left:.3g} % of alpha"
    return (
        f"# {date.today().isoformat()}, stage {found.stage}: {undecided} not decided yet.\n"
        f"# More seeds, by the variances alone, to decide {decided} with 80 % power each; tested at {shares}.\n"
        f"[[stage]]\nseeds = {json.dumps(list(found.seeds))}\nconfigurations = {_array(found.configurations)}\n"
    )


def append(study: Study, found: "Resolution") -> None:
    """Add the stage of a planned study to its spec file.

    :param study: as `resolve` returned it
    :raises StalePlan: when the file is no longer what the plan was made from
    """
    file = study.spec.file.resolve()  # a link stays one
    text, added = _text(file), block(found)
    if not _still(study, _joined(text, added)):
        raise StalePlan(f"{study.spec.file} changed after the plan was made. Plan again.")
    write_text(file, _joined(text, added))


def _still(study: Study, text: str) -> bool:
    """Return whether a text is the spec that was planned."""
    try:
        return specs.parse(text, study.spec.file) == study.spec
    except SpecError:
        return False


def _with(study: Study, added: str) -> specs.Spec:
    """Return the spec as it is with a block at its end."""
    try:
        return specs.parse(_joined(_text(study.spec.file), added), study.spec.file)
    except SpecError as error:
        message = "should be written as blocks that begin with [[stage]], in two brackets, so that one more can follow"
        raise study.spec.error(("stage",), message) from error


def _text(file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as lines:  # line ends as they are
        return lines.read()


def _joined(text: str, added: str) -> str:
    """Return a text with a block after an empty line, in the text's own line ends."""
    end = "\r\n" if "\r\n" in text else "\n"
    gap = "\n" if text.endswith("\n") else "\n\n"
    return text + (gap + added).replace("\n", end)


def _array(names: tuple[str, ...]) -> str:
    """Return texts as a TOML array."""
    return json.dumps(list(names), ensure_ascii=False).replace("\x7f", "\\u007f")
