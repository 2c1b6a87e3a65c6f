"""A plan's work as groups for an executor, and a group as requests for the engine."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.apply.executors.base import Group
from lorafile.engine.data.sources import find_data, find_model
from lorafile.engine.request import EVAL_BATCH, Request, base_identity
from lorafile.engine.stacking.compatible import prediction_class, training_class
from lorafile.environment import gpus
from lorafile.errors import StateError
from lorafile.graph.extra_evaluations import harness_folder
from lorafile.graph.graph import Graph, GraphNode
from lorafile.graph.initializers import INIT, named_function
from lorafile.graph.parameter_count import trained_parameters
from lorafile.graph.target_modules import adapted_modules
from lorafile.lock.data import split_files
from lorafile.lock.lockfile import identity
from lorafile.plan.plan import Plan
from lorafile.specs import Configuration
from lorafile.specs.tables.train import EXECUTION
from lorafile.state import Attempt, State

# What the executor does of one replicate, in one group: on one base, one after another.
REPLICATE_KINDS = ("train", "predict", "inspect", "truncate", "merge")


def groups(plan: Plan) -> list[Group]:
    """Return the work of a plan that an executor does: examples first, then whole seeds, then what is measured alone.

    Scores are not among it: they are made where the plan is applied.
    """
    prepares: list[Group] = []
    profiles: list[Group] = []
    replicates: dict[tuple[str, int | None, int], list[GraphNode]] = {}
    for change in plan.work:
        node = plan.graph.nodes[change.key]
        if node.kind == "prepare":
            prepares.append(Group((node.key,)))
        elif node.kind in REPLICATE_KINDS:
            replicates.setdefault((node.configuration, node.seed, node.repeat), []).append(node)
        elif node.kind == "profile":
            spread = is_spread(plan.graph.spec.named[node.configuration])
            profiles.append(Group((node.key,), base_identity(node.settings), alone=True, spread=spread))
    if not replicates:
        return [*prepares, *profiles]
    work = plan.graph.edges.subgraph({change.key for change in plan.work})
    return [*prepares, *(_replicate(plan.graph, nodes, work) for nodes in replicates.values()), *profiles]


def pending_inputs(plan: Plan, keys: Iterable[str]) -> Any:
    """Return which of a plan's work some nodes wait for: a networkx graph from what is read to what reads it."""
    import networkx as nx

    work = {change.key for change in plan.work}
    nodes = plan.graph.nodes
    return nx.DiGraph((read, key) for key in keys for read in nodes[key].inputs.values() if read in work)


def _replicate(graph: Graph, nodes: list[GraphNode], work: Any) -> Group:
    """Return the group of one replicate, after whatever else of the work it reads.

    :param work: the networkx graph of everything that is to be done
    """
    base = next((base_identity(node.settings) for node in nodes if "model" in node.settings), "")
    nodes.sort(key=lambda node: node.kind == "merge")  # it drops the base that the others share
    keys = tuple(node.key for node in nodes)
    after = {read for key in keys for read in work.predecessors(key)}.difference(keys)
    trains = (node for node in nodes if node.kind == "train")
    pack = next((pack_of(graph, node) for node in trains), "")
    spread = is_spread(graph.spec.named[nodes[0].configuration])
    return Group(keys, base, frozenset(after), pack, spread=spread)


def is_spread(configuration: Configuration) -> bool:
    """Return whether a configuration's base lies on several GPUs at once."""
    return bool(configuration.model.device_map) and len(gpus()) > 1


def pack_of(graph: Graph, node: GraphNode) -> str:
    """Return equal text for nodes of a kind that can be done together; nothing for one that has to be alone."""
    if node.kind not in ("train", "predict") or graph.spec.named[node.configuration].model.device_map:
        return ""  # a base that is spread over GPUs has them all for itself
    if "trainer" in node.settings:
        return ""
    if node.kind == "predict":
        return prediction_class(node.settings, node.inputs.get("data", ""))
    return training_class(node.settings, node.inputs["train"])


def can_pack(plan: Plan) -> bool:
    """Return whether some of a plan's adapters can be trained together."""
    seen: set[str] = set()
    for change in plan.work:
        pack = pack_of(plan.graph, plan.graph.nodes[change.key]) if change.kind == "train" else ""
        if pack and pack in seen:
            return True
        seen.add(pack)
    return False


@dataclass
class RequestBuilder:
    """Makes requests: it knows where models, data and the files of finished nodes are on this machine."""

    graph: Graph
    state: State

    def __post_init__(self) -> None:
        self._models: dict[tuple[str, str | None], Path] = {}
        self._custom_metrics = {metric.digest: metric for metric in self.graph.own.values()}

    def _model(self, path: str, revision: str | None) -> Path:
        """Return a model's directory; a hub is asked once, not for every node."""
        if (path, revision) not in self._models:
            self._models[path, revision] = find_model(path, revision, self.graph.spec.file.parent)
        return self._models[path, revision]

    def requests(self, group: Group, results: dict[str, Attempt]) -> list[Request]:
        """Return what is left to do of a group; a node whose input did not come is left out."""
        requests: list[Request] = []
        coming: set[str] = set()
        for key in group.keys:
            node = self.graph.nodes[key]
            ready = all(
                read in coming or (read in results and results[read].outcome == "done") for read in node.inputs.values()
            )
            if key not in results and ready:
                requests.append(self.request(node, results, coming))
                coming.add(key)
        return requests

    def request(self, node: GraphNode, results: dict[str, Attempt], coming: Set[str] = frozenset()) -> Request:
        """Return what the engine is asked to do for a node.

        :param coming: nodes of the same group whose files will be read
        :raises StateError: when an object that it reads has gone, or is damaged
        """
        inputs = {role: self.files(results[key]) for role, key in node.inputs.items() if key not in coming}
        paths = self.paths(node, self.graph.spec.named[node.configuration])
        if "trainer" in node.settings:
            paths["trainer"] = self.trainer_paths(node)
        if "checkpoint" in node.settings:
            inputs["adapter"] = self.graph.checkpoints[node.settings["checkpoint"]["digest"]]
        return Request(
            key=node.key,
            kind=node.kind,
            address=node.address,
            settings=node.settings,
            paths=paths,
            inputs=inputs,
            awaits={role: key for role, key in node.inputs.items() if key in coming},
            execution=execution(self.graph, node),
            pack=pack_of(self.graph, node),
        )

    def trainer_paths(self, node: GraphNode) -> dict[str, Any]:
        """Return what of this machine a program is run from and with."""
        configuration = self.graph.spec.named[node.configuration]
        assert configuration.train is not None  # noqa: S101 (what is trained has settings of training)
        program = self.graph.trainers[configuration.train.trainer]
        return {
            "name": program.name,
            "line": program.line,
            "python": program.python(self.graph.spec.file.parent),
            "files": {name: str(path.resolve()) for name, path in program.files.items()},
            "data": {name: str(path.resolve()) for name, path in program.data.items()},
            "requirements": program.table.requirements,
            "environment": program.table.environment,
            "stop_seconds": program.table.stop_seconds,
            "protected": [str(self.state.directory.resolve()), str(self.graph.spec.file.parent.resolve())],
            "splits": self._split_rows(configuration) if program.data else {},
        }

    def _split_rows(self, configuration: Configuration) -> dict[str, Any]:
        """Return of each split where its rows are: what else a program trains on must hold none that is held out."""
        splits = {}
        for split, key in self.graph.splits[configuration.name].items():
            node = self.graph.nodes[key]
            places, data = self.paths(node, configuration), node.settings["data"]
            splits[split] = {"files": places["data"], "rows": data["rows"], "sample_by": data.get("sample_by", "auto")}
        return splits

    def files(self, attempt: Attempt) -> dict[str, str]:
        """Return file name -> path of what an attempt left.

        :raises StateError: when an object has gone since the plan was made, or is damaged
        """
        for name, digest in attempt.outputs.items():
            if not self.state.objects.has(digest):
                raise StateError(
                    f"{name} of {attempt.address} is no longer in the state. Run the same command again to recreate it."
                )
        return {name: str(self.state.objects.proven(digest)) for name, digest in attempt.outputs.items()}

    def model(self, configuration: Configuration) -> Path:
        """Return the directory of a configuration's base."""
        table = configuration.model
        return self._model(table.path, self.graph.lock.models[identity(table)].revision or table.revision)

    def model_paths(self, configuration: Configuration) -> dict[str, Any]:
        """Return what of this machine a configuration's base is loaded from and with."""
        model = configuration.model
        return {
            "model": str(self.model(configuration)),
            "model_name": model.path,
            "trust_remote_code": model.trust_remote_code,
            "device_map": model.device_map,
        }

    def paths(self, node: GraphNode, configuration: Configuration) -> dict[str, Any]:
        """Return where a node's model and data are, or its metric file."""
        if node.kind == "score":
            metric = self._custom_metrics.get(node.settings.get("metric_file", ""))
            return {} if metric is None else {"metric": metric}
        data, lock = self.graph.spec.data(configuration, node.split), self.graph.lock
        paths = self.model_paths(configuration)
        if node.kind == "train":
            paths["checkpoint"] = str(self.state.running(node.key).resolve())
            function = named_function(configuration)
            if isinstance(node.settings["adapter"].get(INIT), dict) and function is not None:
                paths["initializer"] = self.graph.initializers[function].code
        if node.kind == "predict" and "include" in node.settings["task"]:
            paths["lm_eval"] = str(harness_folder(self.graph))
        if node.kind == "prepare" and "prompts" not in node.settings["data"]:
            rows = node.settings["data"]
            entry = lock.data[identity(data)]
            source = next(split for split, digest in entry.digests.items() if digest == rows["digest"])
            directory = find_data(data.path, entry.revision or data.revision, self.graph.spec.file.parent)
            files = split_files(directory, data, entry)
            paths |= {"data": [file.as_json() for file in files[source]], "split": node.split, "data_name": data.path}
            if "shots" in rows:
                source = next(split for split, digest in entry.digests.items() if digest == rows["shots"]["digest"])
                paths["shots"] = [file.as_json() for file in files[source]]
        return paths


def execution(graph: Graph, node: GraphNode) -> dict[str, Any]:
    """Return how a node is to be done, as far as that changes no result."""
    if node.kind == "train":
        return graph.spec.tables.train.model_dump(include=set(EXECUTION)) | _planned(graph, node)
    if node.kind == "score":
        return {"metric_timeout": graph.spec.tables.evaluate.metric_timeout}
    return graph.spec.tables.evaluate.model_dump(include={EVAL_BATCH}, exclude_none=True)


def _planned(graph: Graph, node: GraphNode) -> dict[str, Any]:
    """Return what the plan says of an adapter, for the engine to check; an older lock's modules have other names."""
    model, adapter = graph.lock.models[identity(graph.spec.named[node.configuration].model)], node.settings["adapter"]
    if adapter["method"] in ("full", "none"):
        return {}
    linear = "target_modules" in adapter and adapter["method"] != "ln_tuning" and model.transformers is not None
    modules = adapted_modules(adapter, model.modules) if linear else None
    return {"planned": {"modules": modules, "parameters": trained_parameters(node.settings, model)}}


def read_digests(node: GraphNode, results: dict[str, Attempt]) -> dict[str, dict[str, str]]:
    """Return the digests of the very bytes that a node reads: role -> file name -> digest."""
    return {role: dict(results[key].outputs) for role, key in node.inputs.items() if key in results}


def model_content(graph: Graph, node: GraphNode) -> dict[str, dict[str, str]]:
    """Return the digests of what training reads of a base, by which other files of the same content are recognised."""
    if node.kind != "train":
        return {}
    content = graph.lock.models[identity(graph.spec.named[node.configuration].model)].content
    return {"model": content} if content else {}
