"""`lora trainer check`: a program probed before a study depends on it; what was found is kept with the state."""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafile.apply.work_groups import RequestBuilder
from lorafile.errors import ArgumentError, LoraError
from lorafile.files.atomic import write_text
from lorafile.graph.graph import Graph
from lorafile.plan.plan import Plan
from lorafile.plan.programs import check_file
from lorafile.specs.error_messages import suggestion
from lorafile.state import State
from lorafile.units import utc_now

if TYPE_CHECKING:
    from lorafile.engine.trainers.probe import Finding


def check_trainer(
    plan: Plan, state: State, name: str, say: Callable[[str], None] = lambda _: None
) -> Iterator["Finding"]:
    """Probe a declared program on 64 train rows; yield what each probe found, and keep it when all are done.

    :raises LoraError: when there is no such trainer, it trains nothing, or a run of it fails
    """
    from lorafile.engine.request import Request
    from lorafile.engine.run import run
    from lorafile.engine.trainers.probe import probe

    graph = plan.graph
    program = graph.trainers.get(name)
    if program is None:
        known = suggestion(name, graph.trainers) or f"; there is: {', '.join(graph.trainers) or 'none'}"
        raise ArgumentError("name", f"there is no [trainer.{name}]{known}")
    node = _a_run(graph, name)
    requests, configuration = RequestBuilder(graph, state), graph.spec.named[node.configuration]
    with tempfile.TemporaryDirectory(prefix="lorafile-trainer-") as directory:
        root, prepare = Path(directory), graph.nodes[node.inputs["train"]]
        say("preparing the train rows")
        prepared = run(requests.request(prepare, {}), root / "prepare")
        if prepared.outcome != "done":
            raise LoraError(prepared.message)
        files = {file: str(root / "prepare" / file) for file in prepared.files}
        paths = requests.paths(node, configuration) | {"trainer": requests.trainer_paths(node)}
        request = Request(node.key, "train", node.address, node.settings, paths, {"train": files})
        findings = []
        for finding in probe(request, root, run, say):
            findings.append(finding)
            yield finding
    kept = {"trainer": name, "checked": utc_now(), "findings": [asdict(finding) for finding in findings]}
    file = check_file(state.directory, program)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(kept, indent=1) + "\n")


def _a_run(graph: Graph, name: str) -> Any:
    """Return the `train` node of a run that a program does.

    :raises LoraError: when it does none
    """
    for replicates in graph.replicates.values():
        for replicate in replicates:
            node = graph.nodes[replicate.train] if replicate.train else None
            train = graph.spec.named[node.configuration].train if node else None
            if train is not None and train.trainer == name:
                return node
    raise LoraError(
        f"[trainer.{name}] trains nothing in {graph.spec.file}: no configuration has train.trainer = {name!r}."
    )
