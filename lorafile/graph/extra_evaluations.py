"""What is evaluated in addition to the held-out splits, before and after training: a text, prompts, harness tasks."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lorafile.engine.data.columns import check_columns
from lorafile.engine.data.readers import read_rows
from lorafile.engine.metrics.registry import METRICS
from lorafile.errors import NodeError
from lorafile.files.digests import file_digest
from lorafile.graph.builder import GraphBuilder, Owner
from lorafile.graph.graph import Graph
from lorafile.graph.metrics import is_head
from lorafile.graph.settings import answering_sections, bare_sections, data_format, data_section
from lorafile.graph.splits import draw
from lorafile.lock.lockfile import identity
from lorafile.specs import Configuration
from lorafile.specs.tables.evaluate import decoding


def add_texts(builder: GraphBuilder, configuration: Configuration) -> dict[str, str]:
    """Add the `prepare` nodes of the reference text and of the prompts; return split -> key.

    :raises SpecError: when they cannot be read, or the model writes no text
    """
    evaluate = builder.spec.tables.evaluate
    asked = [name for name in ("reference", "prompts", "lm_eval_tasks") if getattr(evaluate, name)]
    if asked and is_head(configuration):
        message = 'needs a language model, but model.task_type = "SEQ_CLS" generates no text'
        raise builder.spec.error(("evaluate", asked[0]), message)
    name = ("texts", configuration.data.as_text, identity(configuration.model))
    return builder.once(name, lambda: _texts(builder, configuration)) if asked else {}


def _texts(builder: GraphBuilder, configuration: Configuration) -> dict[str, str]:
    evaluate, keys = builder.spec.tables.evaluate, {}
    if evaluate.reference is not None:
        keys["reference"] = _prepare(builder, configuration, "reference", _reference_section(builder, configuration))
    if evaluate.prompts is not None:
        keys["prompts"] = _prepare(builder, configuration, "prompts", _prompts_section(builder, configuration))
    return keys


def add_extra_evaluations(
    builder: GraphBuilder, configuration: Configuration, place: str, train: str | None, seed: int | None
) -> dict[str, str]:
    """Add what one model is asked in addition to its splits; return `reference`, `prompts`, `lm-eval/<task>` -> key.

    :param place: where its addresses begin; `train`: the key of what was trained, None for the untuned base
    """
    spec, name = builder.spec, configuration.name
    evaluate, texts = spec.tables.evaluate, builder.graph.texts.get(name, {})
    if not texts and not evaluate.lm_eval_tasks:
        return {}
    bare = bare_sections(builder.graph.sections[name])
    reads = {"adapter": train} if train else {}
    first = spec.tables.study.seeds[0]
    keys: dict[str, str] = {}

    def predict(of: str, task: dict[str, Any], inputs: dict[str, str], split: str) -> str:
        address = f"{place}:predict/{of}"
        owner = Owner(name, seed, split)
        model = builder.lock.models[identity(configuration.model)]
        base = bare if task["output"] == "likelihood" else answering_sections(bare, model)
        return builder.add("predict", address, {**base, "task": task}, {**inputs, **reads}, owner)

    if "reference" in texts:
        inputs = {"data": texts["reference"]}
        reads_of_score = {"likelihood": predict("reference/likelihood", {"output": "likelihood"}, inputs, "reference")}
        section, owner = {"metrics": {"log_loss": METRICS["log_loss"].version}}, Owner(name, seed, "reference")
        keys["reference"] = builder.add("score", f"{place}:score/reference", section, reads_of_score, owner)
    if "prompts" in texts and seed in (None, first):
        task = {"output": "generation", **decoding(evaluate), **({"seed": first} if evaluate.do_sample else {})}
        keys["prompts"] = predict("prompts/generation", task, {"data": texts["prompts"]}, "prompts")
    for harness in evaluate.lm_eval_tasks:
        keys[f"lm-eval/{harness}"] = predict(f"lm-eval/{harness}", _harness(builder, harness), {}, "")
    return keys


def _prepare(builder: GraphBuilder, configuration: Configuration, split: str, data: dict[str, Any]) -> str:
    sections = {"data": data, "tokenizer": builder.lock.models[identity(configuration.model)].tokenizer}
    address = f"data/{split}:prepare"
    address = f"data/{split}/{configuration.name}:prepare" if address in builder.prepared else address
    return builder.add("prepare", address, sections, {}, Owner(configuration.name, split=split))


def _reference_section(builder: GraphBuilder, configuration: Configuration) -> dict[str, Any]:
    table = builder.spec.reference
    assert table is not None  # noqa: S101  (asked for only where it is declared)
    lock = builder.lock.data[identity(table)]
    try:
        rows = draw(table.split, table.split_seed, lock.rows)["test"]
    except ValueError as error:
        raise builder.spec.error(("evaluate", "reference", "rows"), str(error).removeprefix("test ")) from error
    model = builder.lock.models[identity(configuration.model)]
    base = builder.spec.file.parent
    section = data_section(configuration._replace(data=table), lock, model, rows, "reference", base)
    try:
        check_columns(section, lock.columns, table.path, lock.nested())
    except NodeError as error:
        raise builder.spec.error(("evaluate", "reference", "format"), str(error)) from error
    return section


# What prompts have as the study's own data do.
_SHARED = ("labels", "unanswerable", "chat_template", "jinja", "jinja_name", "date", "end_token")


def _prompts_section(builder: GraphBuilder, configuration: Configuration) -> dict[str, Any]:
    """Return the prompts, and the format that they go through."""
    table, data = builder.spec.tables.evaluate.prompts, configuration.data
    assert table is not None  # noqa: S101  (asked for only where it is declared)
    rows: list[str | dict[str, Any]] = list(table.texts)
    if table.path is not None:
        rows += _prompt_rows(builder, table.path)
    section = {
        "prompts": rows,
        "format": data_format(data, builder.lock.data[identity(data)]),
        "template": data.template.model_dump() if data.template else None,
        "columns": data.columns,
        "max_length": data.max_length,
    }
    of_format = builder.graph.nodes[next(iter(builder.graph.splits[configuration.name].values()))].settings["data"]
    return section | {name: of_format[name] for name in _SHARED if name in of_format}


def _prompt_rows(builder: GraphBuilder, path: str) -> list[str | dict[str, Any]]:
    file = builder.spec.file.parent / Path(path).expanduser()
    place = ("evaluate", "prompts", "path")
    if not file.is_file():
        raise builder.spec.error(place, f"there is no file {file}")
    try:
        rows = list(read_rows([file], "line"))
    except NodeError as error:
        raise builder.spec.error(place, str(error)) from error
    if not rows:
        raise builder.spec.error(place, f"{file} contains no prompts")
    alone = {".txt": "text"}.get(file.suffix, "prompt")
    return [str(row[alone]) if [*row] == [alone] else json.loads(json.dumps(row, default=str)) for row in rows]


def _harness(builder: GraphBuilder, name: str) -> dict[str, Any]:
    """Return what decides the figures of one task of lm-evaluation-harness."""
    return builder.once(("harness", name), lambda: _harness_task(builder, name))


def _harness_task(builder: GraphBuilder, name: str) -> dict[str, Any]:
    evaluate = builder.spec.tables.evaluate
    task: dict[str, Any] = {"output": "lm_eval", "task": name}
    for setting, value in (("limit", evaluate.lm_eval_limit), ("num_fewshot", evaluate.lm_eval_num_fewshot)):
        task |= {setting: value} if value is not None else {}
    folder = harness_folder(builder.graph)
    if folder is not None:
        files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        rows = [(file.relative_to(folder).as_posix(), file_digest(file)) for file in files]
        task["include"] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return task


def harness_folder(graph: Graph) -> Path | None:
    """Return the folder of the user's own tasks.

    :raises SpecError: when there is none of that name
    """
    written = graph.spec.tables.evaluate.lm_eval_include_path
    if written is None:
        return None
    folder = graph.spec.file.parent / Path(written).expanduser()
    if not folder.is_dir():
        raise graph.spec.error(("evaluate", "lm_eval_include_path"), f"there is no folder {folder}")
    return folder.resolve()
