"""Lorafile: terraform for LoRA studies.

from lorafile import Study

study = Study.load("study.toml")
study.plan()  # what an apply would run
study.apply()
study.results()  # a row for each run
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorafile.analysis.common.base import Analysis as Analysis
    from lorafile.apply.progress import Applied as Applied
    from lorafile.errors import ArgumentError as ArgumentError
    from lorafile.errors import LoraError as LoraError
    from lorafile.errors import SpecError as SpecError
    from lorafile.errors import StalePlan as StalePlan
    from lorafile.errors import StateError as StateError
    from lorafile.plan.plan import Plan as Plan
    from lorafile.results.results import Results as Results
    from lorafile.study.study import Study as Study

__version__ = "0.1.0"
# Name -> its module, which is imported on first use: `lora --help` needs none of them.
_MODULES = {
    "Analysis": "analysis.common.base",
    "Applied": "apply.progress",
    "ArgumentError": "errors",
    "LoraError": "errors",
    "Plan": "plan.plan",
    "Results": "results.results",
    "SpecError": "errors",
    "StalePlan": "errors",
    "StateError": "errors",
    "Study": "study.study",
}
__all__ = [
    "Analysis",
    "Applied",
    "ArgumentError",
    "LoraError",
    "Plan",
    "Results",
    "SpecError",
    "StalePlan",
    "StateError",
    "Study",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"lorafile.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'lorafile' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
