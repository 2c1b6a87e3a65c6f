"""`lora state`: look into the store of finished work, and keep it sound and small."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorafile.cli.command import command, json_option, main, spec_option, state_option
from lorafile.cli.terminal import say
from lorafile.errors import LoraError

if TYPE_CHECKING:
    from lorafile.state.names import Names

lock_option = click.option(
    "--lock-timeout", type=float, default=0.0, help="Seconds to wait while an apply holds the state."
)
yes_option = click.option("--yes", is_flag=True, help="Do it, without asking.")
_DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@main.group("state")
def state_group() -> None:
    """Look into the state, check it, make room in it, and take it elsewhere.

    \b
    Example: lora state list --where "exact_match>0.5"
    """


@command("list", state_group)
@state_option
@click.option("--study", default="", help="Only what this study declares, or made.")
@click.option(
    "--kind", default="run", show_default=True, help="run, all, or a kind of node: train, predict, score, profile, …"
)
@click.option("--outcome", default="", help="done, diverged, out-of-memory, failed or interrupted.")
@click.option("--where", multiple=True, help="A condition on a setting or a figure: lora.r=16, test.exact_match>0.5.")
@click.option("--since", type=_DATE, help="Begun at this date (UTC) or later.")
@click.option("--until", type=_DATE, help="Begun before this date.")
@json_option
def list_(state: Path | None, as_json: bool, **options: object) -> int:
    """List runs, or other nodes, by study, setting, figure, outcome or date.

    \b
    Example: lora state list --study rank-ablation --where lora.r=16 --where "log_loss<1.2"
    """
    from lorafile.cli.views import plan
    from lorafile.cli.views import state as views_state
    from lorafile.state import State
    from lorafile.state.listing import Wanted, listed
    from lorafile.study.study import state_directory

    times = {name: f"{options[name]:%Y-%m-%dT%H:%M:%S}" if options[name] else "" for name in ("since", "until")}
    wanted = Wanted(**{**options, **times})  # type: ignore[arg-type]
    rows = State.snapshot(state_directory(state), lambda stored: listed(stored, wanted))
    if as_json:
        say(views_state.list_json(rows))
    else:
        views_state.show_list(rows, plan.console())
    return 0


@command("show", state_group)
@click.argument("name")
@spec_option
@state_option
@json_option
def show(name: str, spec: Path | None, state: Path | None, as_json: bool) -> int:
    """Show all of one node: settings, inputs, every attempt, files with digests and paths, environments.

    A run stands for its training. `lora show` has its figures, its predictions and its loss. Where several studies have
    the name, --spec or the key says which is meant.

    \b
    Example: lora state show rank/r=16/seed=42
    """
    from lorafile.cli.views import plan
    from lorafile.cli.views import state as views_state
    from lorafile.plan.names import names_of
    from lorafile.state import State
    from lorafile.state.names import find_node
    from lorafile.state.show import stored
    from lorafile.study.study import study_and_state

    study, directory = study_and_state(spec, state)
    study_spec = study.spec if study else None
    found = State.snapshot(directory, lambda one: stored(one, find_node(names_of(one, study_spec), name)))
    if as_json:
        say(views_state.stored_json(found))
    else:
        views_state.show_stored(found, plan.console())
    return 0


@command("rm", state_group)
@click.argument("names", nargs=-1, required=True)
@click.option("--reason", default="removed by hand", help="Why; kept with what is forgotten.")
@spec_option
@state_option
@yes_option
@lock_option
def rm(
    names: tuple[str, ...], reason: str, spec: Path | None, state: Path | None, yes: bool, lock_timeout: float
) -> int:
    """Forget results, so that the next apply makes them again.

    NAMES are addresses, runs, configurations, beginnings of keys, or patterns such as "rank/*:train". A pattern takes
    what fits in every study of the state, or with --spec in that one; of a name that means different runs in several
    studies nothing is forgotten until --spec or a key says which. What was tried stays on record; the files go with the
    next `lora state gc`.

    \b
    Example: lora state rm rank/r=16/seed=42:train --reason "the GPU was faulty"
    """
    from lorafile.cli.views import plan
    from lorafile.cli.views import state as views_state
    from lorafile.plan.names import names_of
    from lorafile.state import State
    from lorafile.state.edit import forget, forgettable
    from lorafile.study.study import study_and_state

    study, directory = study_and_state(spec, state)
    stored = State.read(directory)
    nodes = forgettable(stored, names_of(stored, study.spec if study else None), names)
    views_state.show_forgettable(nodes, plan.console())
    if not nodes:
        return 0
    if not agreed(yes, "Forget these?"):
        return 1
    forget(directory, nodes, reason, lock_timeout)
    say("Forgotten. The next apply of a study that declares them makes them again.")
    return 0


@command("accept", state_group)
@click.argument("old")
@click.argument("new")
@click.option("--reason", help="Why the two are equivalent; shown wherever the result is used.")
@click.option("--spec", type=click.Path(path_type=Path), help="The study whose node NEW is, by address.")
@click.option("--withdraw", is_flag=True, help="Let NEW stand for itself again.")
@state_option
@lock_option
def accept(
    old: str, new: str, reason: str | None, spec: Path | None, withdraw: bool, state: Path | None, lock_timeout: float
) -> int:
    """Use the finished result of OLD wherever a study has NEW, and what was made from it, too.

    OLD is an address or the beginning of a key; NEW a whole key (`lora plan --json` has them), or with --spec the
    address of a node that the study declares now.

    \b
    Example: lora state accept 3f2a9c rank/r=16/seed=42:train --spec study.toml --reason "only the path moved"
    """
    from lorafile.plan.names import names_of
    from lorafile.state import State, edit
    from lorafile.study.study import study_and_state

    study, directory = study_and_state(spec, state)

    def declared(stored: State) -> "Names":
        return names_of(stored, study.spec if study else None)

    names = declared if study else None
    if withdraw:
        for key in edit.withdraw(directory, new, names, lock_timeout):
            say(f"{key[:12]}… stands for itself again.")
        return 0
    if not reason:
        raise click.UsageError("--reason is needed: it is shown wherever the result is used.")
    made = edit.accept(directory, old, new, reason, names, lock_timeout)
    say(f"The result of {made.old[:12]}… is used in place of {made.new[:12]}…: {made.reason}")
    return 0


def agreed(yes: bool, question: str) -> bool:
    """Ask, unless the answer is given already.

    :raises LoraError: when nobody is there to answer
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise LoraError("Nobody is there to answer: pass --yes.")
    if input(f"{question} Only 'yes' is taken for yes: ").strip() == "yes":
        return True
    say("Nothing was done.")
    return False


from lorafile.cli import state_transfer, state_verify  # noqa: E402, F401  (registers its commands)
