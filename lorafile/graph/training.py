"""The section of a key that says how a configuration is trained, as far as its adapter and its model decide that."""

from typing import Any

from lorafile.errors import ModelError
from lorafile.graph.target_modules import adapted_modules
from lorafile.lock.lockfile import ModelLock
from lorafile.specs.optimizers import decays
from lorafile.specs.tables.train import DECAY, DECAY_PROTOCOL, TrainTable
from lorafile.specs.tables.trainer import BUILTIN
from lorafile.specs.target_modules import leaves
from lorafile.units import did_you_mean

_VECTORS = ("ia3", "vera")  # methods that train vectors, which are neither biases nor norms


def training_section(
    train: TrainTable, adapter: dict[str, Any], model: ModelLock, as_written: bool = False
) -> dict[str, Any]:
    """Return the settings of training that stand in a key.

    :param as_written: with those that cannot matter, as earlier versions had them
    :raises ModelError: when `train.learning_rates` names a module that is not trained
    """
    if train.learning_rates:
        _check_rates(train.learning_rates, adapter, model)
    settings = train.written if as_written else _without_ratio(train.results, adapter)
    decayed = settings["weight_decay"] and train.trainer == BUILTIN and not settings.get("loraplus_lr_ratio")
    other = decayed and "optim" not in settings and decays_more(adapter, model)
    return settings | {DECAY: DECAY_PROTOCOL} if other else settings


def _without_ratio(settings: dict[str, Any], adapter: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of training, without a LoRA+ that gives all matrices one rate.

    With weight decay its groups differ from AdamW's in the norms among modules that are saved whole.
    """
    saved = settings["weight_decay"] and adapter.get("modules_to_save")
    if settings.get("loraplus_lr_ratio") != 1 or saved:
        return settings
    return {name: value for name, value in settings.items() if name != "loraplus_lr_ratio"}


def decays_more(adapter: dict[str, Any], model: ModelLock) -> bool:
    """Return whether transformers' Trainer decays other parameters than every matrix that is no bias.

    Vectors that an adapter adds decay; so do those of the model that by their names are neither biases nor norms.
    """
    if adapter.get("use_dora") or adapter["method"] in _VECTORS:
        return True
    return any(_differs(name, shape, model) for name, shape in _trained(adapter, model).items())


def _trained(adapter: dict[str, Any], model: ModelLock) -> dict[str, list[int]]:
    """Return the parameters of the model itself that are trained, but for biases."""
    parameters = model.tensors | {f"{name}.weight": shape for name, shape in model.modules.items()}
    if adapter["method"] == "full":
        return parameters
    norms = adapter["target_modules"] if adapter["method"] == "ln_tuning" else []
    saved = [*adapter.get("modules_to_save", []), *norms]
    return {name: shape for name, shape in parameters.items() if any(f".{part}." in f".{name}" for part in saved)}


def _differs(name: str, shape: list[int], model: ModelLock) -> bool:
    """Return whether a parameter decays in transformers but not as a matrix, or the other way round.

    A norm with a bias counts as an nn.LayerNorm, which never decays.
    """
    layer_norm = len(shape) == 1 and f"{name.rpartition('.')[0]}.bias" in model.tensors
    matrix = len(shape) > 1 and not name.endswith("bias")
    return matrix is not (decays(name) and not layer_norm)


def _check_rates(rates: dict[str, float], adapter: dict[str, Any], model: ModelLock) -> None:
    """Refuse a rate of a module that is not trained: it would have no effect."""
    trained = _trained_modules(adapter, model)
    for name in rates:
        if not any(f".{name}." in f".{module}." for module in trained):
            endings = leaves(trained)
            there = f"it trains {', '.join(endings)}" if endings else f'method = "{adapter["method"]}" trains none'
            hint = did_you_mean(name, endings, f"{there}.")
            raise ModelError(f'train.learning_rates: no trained module is named "{name}"; {hint}')


def _trained_modules(adapter: dict[str, Any], model: ModelLock) -> list[str]:
    if adapter["method"] == "full":
        return [*model.modules, *(name.rpartition(".")[0] for name in model.tensors)]
    trained = [*adapter.get("modules_to_save", []), *adapter.get("target_parameters", [])]
    if adapter["method"] == "ln_tuning":
        return trained + list(adapter["target_modules"])
    return trained + (adapted_modules(adapter, model.modules) if "target_modules" in adapter else [])
