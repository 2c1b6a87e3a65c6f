"""`lora methods`: the methods, optimizers and schedules that a study can compare, and what each can do."""

from lorafile.cli.command import command, json_option
from lorafile.cli.terminal import echo


@command("methods")
@json_option
def methods(as_json: bool) -> None:
    """List methods, optimizers and schedules, with capabilities.

    Every method was tried: trained on a small model, twice and with an interruption, saved, loaded in plain PEFT,
    merged, and trained on quantized bases. PEFT's methods that are not offered follow with their reasons.

    \b
    Example: lora methods --json
    """
    from lorafile.cli.views.console import console
    from lorafile.cli.views.methods import methods_json, show_methods

    if as_json:
        echo(methods_json())
    else:
        show_methods(console())
