"""Models to chat with: a finished run of a study, or a checkpoint's directory, loaded next to its base."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafile.apply.work_groups import RequestBuilder
from lorafile.environment import installed
from lorafile.errors import LoraError, MissingExtra
from lorafile.graph.build import add_checkpoint
from lorafile.graph.builder import extended
from lorafile.graph.graph import Graph
from lorafile.graph.metrics import is_head
from lorafile.models.evaluate import plan_evaluation
from lorafile.plan.names import StudyRun, find_run
from lorafile.plan.plan import Plan
from lorafile.specs import Configuration, Spec
from lorafile.specs.tables.evaluate import decoding
from lorafile.state import State
from lorafile.state.names import UnknownName, run_name

MAX_NEW_TOKENS = 512

if TYPE_CHECKING:
    from lorafile.engine.inference.chat import ChatSession


@dataclass(frozen=True)
class ChatTarget:
    """The model to chat with.

    :ivar graph: holds its resolved settings
    :ivar configuration: one of the graph's configurations
    :ivar files: of what was trained; None for the untuned base alone
    :ivar whole: another configuration of the graph: a whole model that is compared with the study's base
    """

    name: str
    graph: Graph
    configuration: Configuration
    files: dict[str, str] | None
    whole: Configuration | None = None


def find_chat_target(plan: Plan, state: State, run: str, seed: int | None) -> ChatTarget:
    """Return the model of a run: an address, a key, a configuration's name, or a directory with a checkpoint.

    :raises LoraError: when there is no such run, or it has not finished well
    """
    try:
        return _of_run(plan, state, find_run(plan, state, run, seed))
    except UnknownName:
        if Path(run).expanduser().is_dir():
            return _of_directory(plan.graph.spec, state, run)
        raise


def _of_run(plan: Plan, state: State, run: StudyRun) -> ChatTarget:
    configuration, attempt, name = run.configuration, run.attempt, run_name(run.address)
    _refuse_head(configuration)
    if configuration.method == "none":
        return ChatTarget(configuration.name, plan.graph, configuration, None)
    if attempt.outcome == "done":
        return ChatTarget(name, plan.graph, configuration, RequestBuilder(plan.graph, state).files(attempt))
    attempts = state.latest([run.key]).get(run.key, [])
    if not attempts:
        raise LoraError(f"{name} is not trained yet. Train it with: lora apply {plan.graph.spec.file}")
    raise LoraError(
        f"{name} ended as {attempts[-1].outcome}, so there is no model to chat with: {attempts[-1].message}"
    )


@contextlib.contextmanager
def open_chat(
    target: ChatTarget, state: State, max_new_tokens: int | None, temperature: float | None
) -> Iterator["ChatSession"]:
    """Load a model and its base for a chat with both.

    :param max_new_tokens: the most of an answer; unset: 512, whatever the spec's own answers may have
    :param temperature: draws answers; they are greedy without it, whatever the spec's own decoding is
    :raises MissingExtra: on a machine without torch
    """
    if installed("torch") is None:
        raise MissingExtra("lora chat", "torch")
    from lorafile.engine.inference.chat import Source, open_session
    from lorafile.engine.quiet import quiet_libraries

    quiet_libraries()
    evaluate = target.graph.spec.tables.evaluate
    task: dict[str, Any] = {"max_new_tokens": max_new_tokens or MAX_NEW_TOKENS}
    task |= {key: value for key, value in decoding(evaluate).items() if key == "stop_strings"}
    if temperature:
        task |= {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0, "seed": 0}
    graph, requests = target.graph, RequestBuilder(target.graph, state)
    splits = graph.splits[target.configuration.name].values()
    data = next(graph.nodes[key] for key in splits if key in graph.nodes).settings["data"]

    def source(configuration: Configuration, files: dict[str, str] | None) -> Source:
        return Source(graph.sections[configuration.name], requests.model_paths(configuration), files)

    tuned = source(target.whole or target.configuration, target.files) if target.whole or target.files else None
    with open_session(source(target.configuration, None), tuned, data, task) as session:
        yield session


def _of_directory(spec: Spec, state: State, run: str) -> ChatTarget:
    checkpoint, plan, _ = plan_evaluation(spec, state.directory, run, profile=False)
    graph = plan.graph
    (configuration,) = graph.spec.configurations
    _refuse_head(configuration)
    if checkpoint.digest in graph.checkpoints and "checkpoint" in graph.sections[configuration.name]:
        return ChatTarget(run, graph, configuration, graph.checkpoints[checkpoint.digest])
    base = configuration._replace(name="base", model=spec.tables.model)
    builder = extended(replace(graph, spec=replace(graph.spec, configurations=(base, configuration))))
    add_checkpoint(builder, base, {}, False)
    return ChatTarget(run, builder.graph, base, None, whole=configuration)


def _refuse_head(configuration: Configuration) -> None:
    if is_head(configuration):
        raise LoraError(
            f'{configuration.name} is a classification head (model.task_type = "SEQ_CLS"), which generates no text.'
        )
