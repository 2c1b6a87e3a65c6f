"""Adapters: put on a base, saved as PEFT saves them, loaded as PEFT loads them, and taken off again."""

import contextlib
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.base import Base, Bases, load_base
from lorafile.engine.model.initialization import as_plain_lora, initialize_adapter, restored_afterwards, stored_settings
from lorafile.engine.model.methods import peft_config
from lorafile.engine.model.quantized import unseen_parameters
from lorafile.engine.randomness import dropout_generators, initial_seed, replayed_draws, seed_dropout, seeded
from lorafile.engine.request import Request
from lorafile.errors import NodeError
from lorafile.units import listing

_OF_ADAPTER = ".default"  # what PEFT puts into the name of each tensor of an adapter


@contextlib.contextmanager
def new_adapter(base: Base, request: Request, tokens: Tokens, steps: int) -> Iterator[Any]:
    """Put a new adapter on the base, drawn from its own seed; the base is bare again afterwards.

    :param tokens: the train split, which some initialisations look at
    :param steps: optimizer steps of the run
    """
    settings = request.settings["adapter"]
    seed = request.settings.get("seed", 0)  # a profile has none
    initial = initial_seed(request.settings)
    base.draw_head(initial)
    with restored_afterwards(base.model, settings):
        with peft_errors(settings["method"]), seeded(initial, "initialisation"):
            model = initialize_adapter(base, request, tokens, steps)
        _freeze_ranks(model)
        check_planned(model, request)
        _load_start(model, request, base.head)
        seed_dropout(model, seed, base.device)
        yield model


def _load_start(model: Any, request: Request, head: tuple[str, ...]) -> None:
    """Give a new adapter the tensors of the one that it starts from, if any; a head for other classes stays its own."""
    files = request.inputs.get("start")
    if files is None:
        return
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors = load_file(files["adapter_model.safetensors"])
    if request.settings.get("start", {}).get("head") == "new":
        own, modules = get_peft_model_state_dict(model, save_embedding_layers=False), [f".{name}." for name in head]
        tensors |= {name: tensor for name, tensor in own.items() if any(module in name for module in modules)}
    _check_complete(model, set(tensors))
    with peft_errors(request.settings["adapter"]["method"]):
        set_peft_model_state_dict(model, tensors)


@contextlib.contextmanager
def trained_adapter(base: Base, request: Request, steps: int, matrices: dict[str, torch.Tensor]) -> Iterator[Any]:
    """Put a LoRA that was trained elsewhere on the base as PEFT has it after training; bare again afterwards.

    :param matrices: the tensors of the adapter, by PEFT's names
    """
    from peft import get_peft_model

    adapter = request.settings["adapter"]
    config = peft_config(request, steps, base.head)
    began, config.init_lora_weights = config.init_lora_weights, False  # nothing is drawn, and nothing looked at
    with restored_afterwards(base.model, adapter):
        with peft_errors(adapter["method"]):
            model = get_peft_model(base.model, config, low_cpu_mem_usage=True)
        config.init_lora_weights = began
        check_planned(model, request)
        model.load_state_dict(matrices, strict=False, assign=True)
        yield model


def _freeze_ranks(model: Any) -> None:
    """Freeze the ranks that AdaLoRA divides by: PEFT 0.21.2 makes them trainable where it casts them to float32."""
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)


def check_planned(model: Any, request: Request) -> None:
    """Check that what is adapted is what the plan said: the same modules, and as many parameters.

    :raises NodeError: with what is only in one of them
    """
    planned = request.execution.get("planned")
    if planned is None:
        return
    made = {name.removeprefix("base_model.model.") for name in adapted_layers(model)}
    if planned["modules"] is not None and made != set(planned["modules"]):
        parts = (made - set(planned["modules"]), set(planned["modules"]) - made)
        beyond, lacking = (listing(sorted(part), 4) or "nothing" for part in parts)
        raise NodeError(
            f"PEFT adapts other modules than planned: {beyond} is not in the plan, and {lacking} is only in the plan. "
            "Recreate the model's lock with: lora lock SPEC"
        )
    trainable, _ = parameter_counts(model)
    if trainable != planned["parameters"]:
        raise NodeError(
            f"The adapter has {trainable:,} parameters, but the plan has {planned['parameters']:,}. Recreate the "
            "model's lock with: lora lock SPEC. If they still differ, this is a bug in lorafile."
        )


def adapted_layers(model: Any) -> list[str]:
    """Return the names of the modules that PEFT has put a layer of its own around."""
    from peft.tuners.lora.layer import ParamWrapper
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    others = (ParamWrapper, TrainableTokensLayer)  # around parameters and rows of an embedding
    modules = model.named_modules()
    return [name for name, module in modules if isinstance(module, BaseTunerLayer) and not isinstance(module, others)]


def save_adapter(model: Any, request: Request, out: Path) -> list[str]:
    """Write an adapter as PEFT writes it, to fit the original base; equal adapters give equal bytes."""
    with _peft_warnings():
        model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    file = out / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if hasattr(model, "beginning"):
        as_plain_lora(model, out, config)
    config["base_model_name_or_path"] = request.paths["model_name"]
    if config.get("tokenizer_name_or_path"):
        config["tokenizer_name_or_path"] = request.paths["model_name"]
    for name in ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save"):
        if isinstance(config.get(name), list):
            config[name].sort()
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return ["adapter_config.json", "adapter_model.safetensors"]


def parameter_counts(model: Any) -> tuple[int, int]:
    """Return how many parameters are trainable and how many there are; PEFT sees through packed 4-bit weights."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total) + unseen_parameters(model)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def changed_tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a run changes: the trainable parameters, and whatever else belongs to its adapter."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or _OF_ADAPTER in name:
            yield name, parameter
    for name, buffer in model.named_buffers():
        if _OF_ADAPTER in name:
            yield name, buffer


@contextlib.contextmanager
def as_directory(files: dict[str, str]) -> Iterator[str]:
    """Show stored files under their own names in a directory, without copying them."""
    with tempfile.TemporaryDirectory(prefix="lorafile-") as directory:
        for name, path in files.items():
            (Path(directory) / name).symlink_to(Path(path).resolve())
        yield directory


@contextlib.contextmanager
def stored_adapter(base: Base, files: dict[str, str]) -> Iterator[Any]:
    """Put a stored adapter on the base, as PEFT loads it; the base is bare again afterwards.

    :raises NodeError: when its settings or its tensors do not fit the base
    """
    from peft import PeftModel

    stored = stored_settings(files)
    with as_directory(files) as directory, restored_afterwards(base.model, stored):
        with peft_errors(str(stored.get("peft_type", "adapter")).lower()):
            model = PeftModel.from_pretrained(base.model, directory)
        _check_complete(model, _tensor_names(Path(directory) / "adapter_model.safetensors"))
        yield model.eval()


def _tensor_names(file: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as stream:
        return set(stream.keys())


def _check_complete(model: Any, stored: set[str]) -> None:
    """Refuse an adapter that was loaded in part: PEFT leaves out and draws what does not fit.

    :param stored: the names of its tensors
    """
    from peft import get_peft_model_state_dict

    expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    unexpected, missing = stored - expected - set(model.state_dict()), expected - stored
    if unexpected or missing:
        mismatch = (
            f"has no place for {min(unexpected)}"
            if unexpected
            else f"needs {min(missing)}, which the adapter does not have"
        )
        raise NodeError(f"The adapter does not match this model: the model {mismatch}.")


@contextlib.contextmanager
def tuned_model(bases: Bases, request: Request) -> Iterator[tuple[Base, Any]]:
    """Yield the base and the model of a request: bare, with its stored adapter, or fine-tuned in full."""
    files = request.inputs.get("adapter")
    if files is None:
        with bases.proven(request.settings, request.paths) as base:
            yield base, base.model.eval()
    elif "adapter_config.json" in files:
        with bases.proven(request.settings, request.paths) as base, stored_adapter(base, files) as model:
            yield base, model
    else:
        bases.drop()
        base = load_tuned(request.settings, request.paths, files)
        yield base, base.model.eval()


def load_tuned(
    settings: dict[str, Any], paths: dict[str, Any], files: dict[str, str] | None, proven: bool = True
) -> Base:
    """Load a base, or in its place the whole model that was fine-tuned from it.

    :param files: file name -> path of what was trained; an adapter, or nothing, leaves the base as it is
    """
    if not files or "adapter_config.json" in files:
        return load_base(settings, paths, proven=proven)
    with as_directory(files) as directory:
        return load_base(settings, paths, weights=directory, proven=proven)


@contextlib.contextmanager
def _peft_warnings() -> Iterator[None]:
    """Ignore PEFT's warnings: what matters of them is an error here, or in a spec's checks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        # AdaLoRA keeps what it found in a setting that PEFT's other methods read
        warnings.filterwarnings("ignore", message="The following rank_pattern keys", category=RuntimeWarning)
        # peft 0.21 uses a name that transformers 5.23 gave up; nothing that we or the user could change
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


@contextlib.contextmanager
def peft_errors(method: str = "lora") -> Iterator[None]:
    """Turn PEFT's errors about a method's settings into a NodeError of one sentence."""
    try:
        with _peft_warnings():
            yield
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise NodeError(f"{method}: PEFT rejects these settings on this model: {error}") from error
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        row = next(line.strip() for line in str(error).splitlines() if "size mismatch" in line)
        raise NodeError(f"The adapter does not match this model: {row}") from error


@contextlib.contextmanager
def autocast(device: torch.device, training: dict[str, Any]) -> Iterator[None]:
    """Run forward passes in a lower precision where `bf16` or `fp16` says so."""
    dtype = torch.bfloat16 if training["bf16"] else torch.float16
    with torch.autocast(device.type, dtype=dtype, enabled=training["bf16"] or training["fp16"]):
        yield


@contextlib.contextmanager
def checkpointed(model: Any, enabled: bool, generators: list[torch.Generator] | None = None) -> Iterator[None]:
    """Recompute activations in the backward pass while this lasts: the next run on the base may not want it.

    transformers 5.23 gave the switch another name.

    :param generators: what dropout is drawn from, where the model's own modules do not tell
    """
    generators = dropout_generators(model) if generators is None else generators
    options: dict[str, Any] = {"use_reentrant": False}
    if generators:
        options["context_fn"] = lambda: replayed_draws(generators)
    word = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if enabled:
        getattr(model, f"{word}_checkpointing_enable")(**{f"{word}_checkpointing_kwargs": options})
        if getattr(model, "_require_grads_hooks", None):
            # transformers asks for the embeddings' gradient, which only reentrant recomputation needs: frozen layers
            # below the first adapter would be computed twice, and gone back through, for nothing.
            model.disable_input_require_grads()
    try:
        yield
    finally:
        if enabled:
            getattr(model, f"{word}_checkpointing_disable")()
