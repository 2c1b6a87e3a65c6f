"""Lorafile: terraform for LoRA studies."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorafile.study.study import Study as Study

__version__ = "0.1.0"
__all__ = ["Study", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Study":  # imported on first use: `lora --help` needs none of it
        from lorafile.study.study import Study

        return Study
    raise AttributeError(f"module 'lorafile' has no attribute {name!r}")
