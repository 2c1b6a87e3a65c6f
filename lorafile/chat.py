"""Which model `lora chat` talks to: a finished run of a study, or a directory; and the talk itself, opened."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafile.engine.environment import installed
from lorafile.errors import LoraError, MissingExtra
from lorafile.evaluate import plan_evaluation
from lorafile.graph import Graph, GraphNode
from lorafile.groups import Places
from lorafile.nodes.checkpoint import add_checkpoint
from lorafile.nodes.metrics import is_head
from lorafile.plan import Plan
from lorafile.specs import Configuration
from lorafile.specs.evaluate_settings import decoding
from lorafile.specs.problems import near
from lorafile.state import State
from lorafile.study import Study
from lorafile.tuning import check_chosen

if TYPE_CHECKING:
    from lorafile.engine.chat import Talk

_ADDRESS = re.compile(r"(?P<name>.+?)(?:/seed=(?P<seed>\d+))?(?::.*)?")


@dataclass(frozen=True)
class Partner:
    """Whom one talks to.

    :ivar graph: holds its resolved settings; `configuration` is one of its configurations
    :ivar files: of what was trained; None for the untuned base alone
    :ivar whole: another configuration of the graph: a whole model that stands for itself beside the study's base
    """

    name: str
    graph: Graph
    configuration: Configuration
    files: dict[str, str] | None
    whole: Configuration | None = None


def find_partner(study: Study, run: str, seed: int | None) -> Partner:
    """Return the model of a run: a configuration's name, an address, or a directory with a checkpoint.

    :raises LoraError: when there is no such run, or it has not finished well
    """
    plan = study.plan()
    addressed = _addressed(plan, run)
    if addressed is not None:
        return _partner(study, plan, addressed)
    match = _ADDRESS.fullmatch(run)
    name = match["name"] if match else run
    configuration = next((c for c in study.spec.configurations if name in (c.name, *c.aliases)), None)
    if configuration is None:
        if Path(run).expanduser().is_dir():
            return _of_directory(study, run)
        names = [other for c in study.spec.configurations for other in (c.name, *c.aliases)]
        raise LoraError(
            f'"{run}" is no configuration of {study.spec.file}, and no directory{near(name, names) or "."} '
            f"The study has: {', '.join(names)}."
        )
    if configuration.method == "none":
        _refuse_head(configuration)
        return Partner(configuration.name, plan.graph, configuration, None)
    return _partner(study, plan, _trained(plan, configuration, int(match["seed"]) if match and match["seed"] else seed))


def _addressed(plan: Plan, run: str) -> GraphNode | None:
    """Return the node of an address that leaves a model: a training, or an adapter cut to a smaller rank."""
    nodes = [node for node in plan.graph.nodes.values() if node.kind in ("train", "truncate")]
    return next((node for node in nodes if run in (node.address, node.address.rpartition(":")[0])), None)


def _trained(plan: Plan, configuration: Configuration, seed: int | None) -> GraphNode:
    """Return the training of a seed, or the first that has finished."""
    check_chosen(plan, configuration.name)
    replicates = plan.graph.replicates[configuration.name]
    if seed is not None and seed not in [replicate.seed for replicate in replicates]:
        listed = ", ".join(str(replicate.seed) for replicate in replicates)
        raise LoraError(f"{configuration.name} has no seed {seed}; the study's seeds are {listed}.")
    keys = [str(replicate.train) for replicate in replicates if seed in (None, replicate.seed)]
    done = [key for key in keys if key in plan.results and plan.results[key].outcome == "done"]
    return plan.graph.nodes[(done or keys)[0]]


def _partner(study: Study, plan: Plan, node: GraphNode) -> Partner:
    """Return the partner that a node's files make.

    :raises LoraError: when the node has not finished well
    """
    configuration = plan.graph.spec.named[node.configuration]
    _refuse_head(configuration)
    state = State.read(study.state)
    name = node.address.rpartition(":")[0]
    if node.key in plan.results and plan.results[node.key].outcome == "done":
        return Partner(name, plan.graph, configuration, Places(plan.graph, state).files(plan.results[node.key]))
    attempts = state.latest([node.key]).get(node.key, [])
    if not attempts:
        raise LoraError(f"{name} is not trained yet. Train it with: lora apply {study.spec.file}")
    raise LoraError(f"{name} ended as {attempts[-1].outcome}, so there is nothing to talk to: {attempts[-1].message}")


@contextlib.contextmanager
def talk_to(partner: Partner, study: Study, max_new_tokens: int | None, temperature: float | None) -> Iterator["Talk"]:
    """Load base and partner, and lend the talk between them.

    :param temperature: draws answers; they are greedy without it, whatever the spec's own decoding is
    :raises MissingExtra: on a machine without torch
    """
    if installed("torch") is None:
        raise MissingExtra("lora chat", "torch")
    from lorafile.engine.chat import Source, opened
    from lorafile.engine.quiet import quiet_libraries

    quiet_libraries()
    evaluate = study.spec.tables.evaluate
    task: dict[str, Any] = {"max_new_tokens": max_new_tokens or evaluate.max_new_tokens}
    task |= {key: value for key, value in decoding(evaluate).items() if key == "stop_strings"}
    if temperature:
        task |= {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0, "seed": 0}
    graph, places = partner.graph, Places(partner.graph, State.read(study.state))
    splits = graph.splits[partner.configuration.name].values()
    data = next(graph.nodes[key] for key in splits if key in graph.nodes).settings["data"]

    def source(configuration: Configuration, files: dict[str, str] | None) -> Source:
        return Source(graph.sections[configuration.name], places.model_paths(configuration), files)

    tuned = source(partner.whole or partner.configuration, partner.files) if partner.whole or partner.files else None
    with opened(source(partner.configuration, None), tuned, data, task) as talk:
        yield talk


def _of_directory(study: Study, run: str) -> Partner:
    checkpoint, plan, _ = plan_evaluation(study, run, profile=False)
    graph = plan.graph
    (configuration,) = graph.spec.configurations
    _refuse_head(configuration)
    if checkpoint.digest in graph.checkpoints and "checkpoint" in graph.sections[configuration.name]:
        return Partner(run, graph, configuration, graph.checkpoints[checkpoint.digest])
    base = configuration._replace(name="base", model=study.spec.tables.model)
    add_checkpoint(graph, base, {}, False)
    graph.spec = replace(graph.spec, configurations=(base, configuration))
    return Partner(run, graph, base, None, whole=configuration)


def _refuse_head(configuration: Configuration) -> None:
    if is_head(configuration):
        raise LoraError(
            f'{configuration.name} is a classification head (model.task_type = "SEQ_CLS"), which writes no text.'
        )
