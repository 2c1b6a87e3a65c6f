"""Trackers: a study's runs, sent to Weights & Biases, MLflow or TensorBoard (docs/tracking.md).

What is here is asked of every plan, so it loads nothing.
"""

from importlib.util import find_spec

from lorafile.specs import Spec

LIBRARIES = {"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboardX"}


def missing(spec: Spec) -> list[str]:
    """Say of each tracker of a spec whose library is not installed what to install."""
    return [
        f"tracking: {tracker} is not installed here, so nothing is sent to it. Install it with: "
        f"pip install 'lorafile[{tracker}]'"
        for tracker in spec.tables.tracking.trackers
        if find_spec(LIBRARIES[tracker]) is None
    ]
