"""A planned stage as a block at the end of the spec file: added, never written over what is there."""

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile import specs
from lorafile.errors import SpecError, StalePlan
from lorafile.files.atomic import write_text
from lorafile.study.study import Study
from lorafile.units import plural

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

    stage = resolution(study.gather(), study.spec, most)
    return (Study(_with_block(study, block(stage)), study.state) if stage.seeds else study), stage


def block(stage: "Resolution") -> str:
    """Return a stage as TOML, with a comment that says when, why and for which interim look."""
    decided = sum(comparison.planned for comparison in stage.undecided)
    undecided = f"{len(stage.undecided)} of {plural(stage.comparisons, 'comparison')} on {stage.metric}"
    names = json.dumps(list(stage.configurations), ensure_ascii=False).replace("\x7f", "\\u007f")
    shares = f"{100 * stage.alpha:.3g} %, which leaves {100 * stage.left:.3g} % of alpha"
    return (
        f"# {date.today().isoformat()}, stage {stage.stage}: {undecided} inconclusive so far.\n"
        f"# More seeds, from the variances alone, to decide {decided} with 80 % power each; tested at {shares}.\n"
        f"[[stage]]\nseeds = {json.dumps(list(stage.seeds))}\nconfigurations = {names}\n"
    )


def append(study: Study, stage: "Resolution") -> None:
    """Add the stage of a planned study to its spec file.

    :param study: as `resolve` returned it
    :raises StalePlan: when the file is no longer what the plan was made from
    """
    file = study.spec.file.resolve()  # a link stays one
    text = _joined(_text(file), block(stage))
    try:
        unchanged = specs.parse(text, study.spec.file) == study.spec
    except SpecError:
        unchanged = False
    if not unchanged:
        raise StalePlan(f"{study.spec.file} changed after the plan was made. Plan again.")
    write_text(file, text)


def _with_block(study: Study, added: str) -> specs.Spec:
    """Return the spec as it is with a block at its end."""
    try:
        return specs.parse(_joined(_text(study.spec.file), added), study.spec.file)
    except SpecError as error:
        message = (
            "should be written as blocks that start with [[stage]], in double brackets, so that another one can follow"
        )
        raise study.spec.error(("stage",), message) from error


def _text(file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as lines:  # line ends as they are
        return lines.read()


def _joined(text: str, added: str) -> str:
    """Return a text with a block after an empty line, in the text's own line ends."""
    end = "\r\n" if "\r\n" in text else "\n"
    gap = "\n" if text.endswith("\n") else "\n\n"
    return text + (gap + added).replace("\n", end)
