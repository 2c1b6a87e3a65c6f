"""What a classification head is: its classes in order, and whether the checkpoint has one."""

from typing import Any

from lorafile.engine.data.labels import classes
from lorafile.errors import NodeError
from lorafile.lock.data import DataLock
from lorafile.lock.lockfile import ModelLock
from lorafile.specs import Configuration


def head(configuration: Configuration, model: ModelLock, data: DataLock) -> dict[str, Any]:
    """Return a head's `labels`, in the order of its scores, and `head`: `own` from the checkpoint, or `new`.

    :raises NodeError: when the classes of the checkpoint are others than the data's, or a new head is not trained
    """
    names = [name for _, name in classes(data.classes(), configuration.data.labels)]
    architecture = (model.settings.get("architectures") or [""])[0]
    if not architecture.endswith("ForSequenceClassification"):
        if configuration.method == "none":
            raise NodeError(
                f'method: "none" cannot classify with {configuration.model.path}: its head would be drawn at random. '
                "Name a checkpoint that was trained to classify, or compare with a model without a head."
            )
        return {"labels": names, "head": "new"}
    return {"labels": _ordered(names, model, configuration.model.path), "head": "own"}


def _ordered(names: list[str], model: ModelLock, path: str) -> list[str]:
    """Return the data's classes in the order of a checkpoint's own head; `LABEL_0` and so on are nobody's names."""
    stored = model.settings.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers writes no default
    own = [str(stored[key]) for key in sorted(stored, key=int)]
    if set(own) == set(names):
        return own
    if len(own) == len(names) and all(name.startswith("LABEL_") for name in own):
        return names
    raise NodeError(
        f"model.path: {path} classifies into {', '.join(own)}, and the data have {', '.join(names)}; name them alike "
        "with data.labels."
    )
