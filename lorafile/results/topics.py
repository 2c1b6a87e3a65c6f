"""What a study uses that somebody has published: methods, ways to begin, quantizations; each by a word of ours."""

from typing import Any

from lorafile.specs import Configuration

_SWITCHES = {"use_dora": "dora", "use_rslora": "rslora"}


def topics(configurations: tuple[Configuration, ...]) -> tuple[str, ...]:
    """Return what the configurations use, in their order, each once: `lora`, `dora`, `start:pissa`, `base:nf4`."""
    found: dict[str, None] = {}
    for configuration in configurations:
        if configuration.method not in ("none", "full"):
            found |= dict.fromkeys([configuration.method, *_adapter(configuration.adapter or {})])
        if configuration.train is not None and configuration.train.loraplus_lr_ratio is not None:
            found["loraplus"] = None
        if configuration.quantization:
            found[f"base:{_base(configuration.quantization)}"] = None
    return tuple(found)


def _adapter(settings: dict[str, Any]) -> list[str]:
    found = [topic for switch, topic in _SWITCHES.items() if settings.get(switch)]
    start = settings.get("init_lora_weights")
    return [*found, f"start:{start.partition('_niter')[0]}"] if isinstance(start, str) else found


def _base(quantization: dict[str, Any]) -> str:
    library = quantization.get("quant_method", "bitsandbytes")
    if library != "bitsandbytes":
        return str(library)
    return "int8" if quantization.get("load_in_8bit") else str(quantization.get("bnb_4bit_quant_type", "fp4"))
