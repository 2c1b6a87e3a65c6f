"""What a `train` node evaluates on validation while it trains, and what follows from it: a section of its key."""

from collections.abc import Callable
from typing import Any

from lorafile.engine.metrics.registry import built_in
from lorafile.errors import ModelError
from lorafile.graph.builder import GraphBuilder
from lorafile.graph.metrics import built_in_metrics, is_head, score_section
from lorafile.graph.settings import answering_sections, bare_sections
from lorafile.lock.lockfile import identity
from lorafile.specs import Configuration
from lorafile.specs.tables.train import TrainTable

# Output -> what is predicted, and how an answer is drawn.
TaskOf = Callable[[str], dict[str, Any]]


def validation_section(builder: GraphBuilder, configuration: Configuration, task_of: TaskOf) -> dict[str, Any]:
    """Return what decides the evaluations of a run; empty where it has none.

    :raises SpecError: at what cannot be evaluated
    """
    train = configuration.train
    if train is None:
        return {}
    with builder.spec.located():
        _check_trainer(configuration, train)
        if train.eval_steps is None:
            return {}
        if "validation" not in builder.graph.splits[configuration.name]:
            raise ModelError(
                "train.eval_steps: evaluates on validation, but the data have no validation split; define one in "
                "data.split"
            )
        return _section(builder, configuration, train.validation, task_of)


def evaluations(validation: dict[str, Any], steps: int) -> int:
    """Return how often a run of so many steps is evaluated, the last step included, if it does not stop early."""
    return -(-steps // int(validation["eval_steps"]))


def _section(
    builder: GraphBuilder, configuration: Configuration, settings: dict[str, Any], task_of: TaskOf
) -> dict[str, Any]:
    loss = "mse" if configuration.model.is_regression else "log_loss"
    metric = settings.get("metric_for_best_model", loss)
    if metric != loss and metric not in built_in_metrics(builder.spec):
        raise ModelError(f'train.metric_for_best_model: "{metric}" is neither {loss} nor a metric of evaluate.metrics')
    scored, head = score_section(builder, configuration, "validation"), is_head(configuration)
    metrics: dict[str, Any] = {}
    for name in dict.fromkeys((loss, metric)):
        version, options = built_in(name, head).version, scored.get("options", {}).get(name)
        metrics[name] = {"version": scored["metrics"].get(name, version), **({"options": options} if options else {})}
    tasks = {built_in(name, head).needs: task_of(built_in(name, head).needs) for name in metrics}
    data = builder.graph.nodes[builder.graph.splits[configuration.name]["validation"]].settings["data"]
    rows = int(data["rows"]["stop"]) - int(data["rows"]["start"])
    return {
        **settings,
        "max_eval_samples": min(settings["max_eval_samples"], rows),
        "metric_for_best_model": metric,
        "metrics": metrics,
        "tasks": tasks,
        **({"reasoning": scored["reasoning"]} if "reasoning" in scored else {}),
        **(_answering_config(builder, configuration) if "generation" in tasks else {}),
    }


def _answering_config(builder: GraphBuilder, configuration: Configuration) -> dict[str, str]:
    """Return the digest of the config whose token ends answers, where training reads another one of equal content."""
    bare = bare_sections(builder.graph.sections[configuration.name])
    base = answering_sections(bare, builder.lock.models[identity(configuration.model)])
    return {} if base is bare else {"answering_config": base["model"]["config"]}


def _check_trainer(configuration: Configuration, train: TrainTable) -> None:
    """Refuse for a program what only the built-in loop does.

    :raises ModelError: at the setting
    """
    if configuration.trainer is None:
        return
    for name, what in (("eval_steps", "evaluates while it trains"), ("init_seed", "has a seed of its own for this")):
        if getattr(train, name) is not None:
            raise ModelError(
                f"train.{name}: only the built-in training loop {what}, not [trainer.{train.trainer}]; omit it for "
                "this trainer"
            )
