"""The sections of a node: a configuration's settings with everything filled in that its model and data decide."""

from functools import cache
from pathlib import Path
from typing import Any

from lorafile.engine.data.columns import (
    PREFERENCES,
    RATING,
    detect,
    is_preference_set,
    is_unpaired_preference_set,
    preference_set,
    reads_otherwise,
    unpaired_preference_set,
)
from lorafile.engine.data.labels import classes, too_many_labels
from lorafile.engine.data.templates import CONVERSABLE
from lorafile.errors import ModelError, NodeError
from lorafile.graph.parameter_count import adapter_parameters, matched, rank_step
from lorafile.graph.splits import Rows
from lorafile.graph.target_modules import placed, without_idle
from lorafile.graph.training import training_section
from lorafile.lock.data import DataLock
from lorafile.lock.lockfile import Lock, ModelLock, identity
from lorafile.specs import Configuration
from lorafile.specs.snapshot import snapshot
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.lora import REWRITING, VARIANTS
from lorafile.specs.tables.methods import METHODS
from lorafile.specs.tables.quantizations import quantization_kind
from lorafile.specs.tables.train import PACKED_ROW_LENGTH
from lorafile.units import column_list, header_hint


def resolved_sections(configuration: Configuration, lock: Lock, shared: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration's sections with everything filled in that its model decides.

    :param shared: text -> section of a model, of which configurations that are on the same model get the same one
    :raises ModelError: when a target is nowhere in the model
    """
    model = lock.models[identity(configuration.model)]
    base = _model(configuration, model, lock) if shared is None else _shared_model(configuration, model, lock, shared)
    dtype = base["dtype"]
    sections: dict[str, Any] = {
        "model": base,
        "quantization": _quantization(configuration, model),
        "adapter": {"method": configuration.method},
    }
    if configuration.adapter is not None:
        sections["adapter"] |= _adapter(configuration, model)
        method = METHODS[configuration.method]
        if dtype != "float32" and not method.trains_on("bfloat16"):
            raise ModelError(f'method: PEFT does not train {method.title} in {dtype}; set model.dtype = "float32".')
        if dtype != "float32" and configuration.adapter.get("bias", "none") != "none":
            raise ModelError(
                f"{configuration.method}.bias: biases are trained in the type of the base, and small steps are lost in "
                f'{dtype}; set model.dtype = "float32", or leave bias at "none".'
            )
        if configuration.matched is not None:
            first = configuration.matched
            wanted = resolved_sections(first, lock)["adapter"]
            parameters = adapter_parameters(wanted, lock.models[identity(first.model)])
            sections["adapter"] = matched(sections["adapter"], model, parameters, configuration.alpha_of_rank)
        sections["adapter"] = sections["adapter"] if lock.as_written else without_idle(sections["adapter"], model)
    if configuration.train is not None:
        draws = configuration.method != "full" or base.get("head") == "new"
        training = training_section(configuration.train, sections["adapter"], model, lock.as_written)
        sections["training"] = training if draws or lock.as_written else _without_init_seed(training)
        if configuration.train.validation:
            sections["validation"] = configuration.train.validation  # what is evaluated is resolved with its node
        if configuration.data.packing and (rows := _packed_rows(configuration, lock)):
            sections["training"] = sections["training"] | rows
    return sections


def _packed_rows(configuration: Configuration, lock: Lock) -> dict[str, Any]:
    """Return the length of rows of several examples; of text nothing, whose blocks are made when it is prepared."""
    table = configuration.data
    is_text = data_format(table, lock.data[identity(table)]) == "text"
    return {} if is_text else {PACKED_ROW_LENGTH: table.max_length}


def _without_init_seed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a training of which nothing is drawn."""
    if "init_seed" not in settings:  # so that the section stays one object
        return settings
    return {name: value for name, value in settings.items() if name != "init_seed"}


def _shared_model(configuration: Configuration, model: ModelLock, lock: Lock, shared: dict[str, Any]) -> dict[str, Any]:
    """Return a model's section, the same one for all that are on the same model."""
    of_head = configuration.data.as_text if configuration.model.task_type == "SEQ_CLS" else ""
    asked = "\n".join((configuration.method, configuration.model.as_text, of_head))
    if asked not in shared:
        base = _model(configuration, model, lock)
        shared[asked] = shared.setdefault(repr(base), base)
    section: dict[str, Any] = shared[asked]
    return section


def _model(configuration: Configuration, model: ModelLock, lock: Lock) -> dict[str, Any]:
    """Return what decides a base."""
    # Small steps are lost in half-precision weights: all weights are trained in float32 unless the spec says otherwise.
    own = "float32" if configuration.method == "full" else model.dtype
    return {
        **{name: lock.equal.get(digest, digest) for name, digest in _files(model).items()},
        "dtype": own if configuration.model.dtype == "auto" else configuration.model.dtype,
        "trust_remote_code": configuration.model.trust_remote_code,
        **_when_set(configuration, model, lock),
    }


def _files(model: ModelLock) -> dict[str, str]:
    return {"weights": model.weights, "config": model.config, "tokenizer": model.tokenizer}


def _when_set(configuration: Configuration, model: ModelLock, lock: Lock) -> dict[str, Any]:
    """Return what enters a model's section only where the spec names it."""
    attention = configuration.model.attn_implementation
    section: dict[str, Any] = {} if attention == "auto" else {"attn_implementation": attention}
    if configuration.model.task_type == "SEQ_CLS":
        data = lock.data[identity(configuration.data)]
        if data_format(configuration.data, data) != "classification":
            what = "labels" if configuration.model.is_regression else "classes"
            raise ModelError(f'model.task_type: "SEQ_CLS" needs data with {what}: data.format = "classification".')
        section |= {"task_type": "SEQ_CLS", **head(configuration, model, data)}
    return section


def head(configuration: Configuration, model: ModelLock, data: DataLock) -> dict[str, Any]:
    """Return a head's `labels`, in the order of its scores, and `head`: `own` from the checkpoint, or `new`.

    A regression has `num_labels` instead of `labels`.

    :raises ModelError: when the classes of the checkpoint are others than the data's, or a new head is not trained
    """
    regression, path = configuration.model.is_regression, configuration.model.path
    names = [] if regression else _class_names(configuration, data)
    architecture = (model.settings.get("architectures") or [""])[0]
    own = architecture.endswith("ForSequenceClassification")
    if not own and configuration.method == "none":
        raise ModelError(
            f'method: "none" cannot classify with {path}: its head would be random. Compare with method = '
            '"head", which trains only the head, or use a checkpoint that can classify.'
        )
    if not regression:
        return {"labels": _ordered(names, model, path) if own else names, "head": "own" if own else "new"}
    outputs = len(_own_names(model))
    if own and outputs != 1:
        raise ModelError(f"model.num_labels: {path} has a head with {outputs} classes, which predicts no numbers")
    return {"num_labels": 1, "head": "own" if own else "new"}


def _class_names(configuration: Configuration, data: DataLock) -> list[str]:
    """Return the names of the data's classes.

    :raises ModelError: when they are none, or not as many as the spec says
    """
    if data.label is None:
        column = configuration.data.columns.get("label", "label")
        raise ModelError(
            f'data.columns: {configuration.data.path} has no column "{column}" for the classes; its columns are: '
            f'{column_list(data.columns)}. Set it with columns = {{ label = "…" }}.{header_hint(data.columns)}'
        )
    if not data.labels:
        raise ModelError(f"data.columns: {too_many_labels(data.label)}")
    try:
        names = [name for _, name in named_classes(configuration.data, data)]
    except NodeError as error:
        raise ModelError(f"data.labels: {error}") from error
    outputs = configuration.model.num_labels
    if outputs not in (None, len(names)):
        raise ModelError(
            f"model.num_labels: {outputs} is neither 1, which predicts numbers, nor the number of the data's classes, "
            f"{len(names)}; omit it"
        )
    return names


def _own_names(model: ModelLock) -> list[str]:
    """Return the classes of a checkpoint's own head, in the order of its scores."""
    stored = model.settings.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers writes no default
    return [str(stored[key]) for key in sorted(stored, key=int)]


def _ordered(names: list[str], model: ModelLock, path: str) -> list[str]:
    """Return the data's classes in the order of a checkpoint's own head; `LABEL_0` and so on are placeholders."""
    own = _own_names(model)
    if set(own) == set(names):
        return own
    if len(own) == len(names) and all(name.startswith("LABEL_") for name in own):
        return names
    raise ModelError(
        f"model.path: {path} classifies into {', '.join(own)}, but the data have {', '.join(names)}; give them the "
        "same names with data.labels."
    )


def _quantization(configuration: Configuration, model: ModelLock) -> dict[str, Any] | None:
    """Return how a base is quantized when it is loaded; None leaves a checkpoint as it is.

    :raises ModelError: when the checkpoint is quantized already, or would have to be
    """
    wanted = configuration.quantization
    stored = model.settings.get("quantization_config")
    asked = wanted and wanted.get("quant_method", "bitsandbytes")
    path = configuration.model.path
    if asked == "hqq" and configuration.model.device_map:
        raise ModelError(
            "model.device_map: an HQQ base is created on one GPU and cannot be spread; omit one of the two."
        )
    if stored is None:
        if asked == "awq":
            raise ModelError(
                "quantization: a model cannot be quantized with AWQ when it is loaded; set model.path to a checkpoint "
                f"quantized with it instead of {path}."
            )
        return wanted
    own = stored.get("quant_method", "bitsandbytes")
    if own == "hqq":
        raise ModelError(
            f"model.path: {path} is an HQQ checkpoint, which transformers 5 cannot load; use the model it was "
            'made from, with quantization = { quant_method = "hqq" }.'
        )
    if configuration.method == "full":
        raise ModelError(f"method: {path} is already quantized ({own}) and cannot be fully fine-tuned.")
    method = METHODS.get(configuration.method)
    if method is not None and not method.trains_on(quantization_kind(stored)):
        raise ModelError(
            f"method: {path} is already quantized ({own}), and PEFT does not support {method.title} on such a base."
        )
    start = (configuration.adapter or {}).get("init_lora_weights")
    if str(start).startswith((*REWRITING, "mica", "orthogonal", "loftq")):
        raise ModelError(
            f'lora.init_lora_weights: "{start}" needs full weights, and {path} is already quantized ({own}).'
        )
    for name in VARIANTS:
        if (configuration.adapter or {}).get(name):
            raise ModelError(f"lora.{name}: PEFT does not support it on {path}, which is already quantized ({own}).")
    if wanted is None or (asked == own and own in ("gptq", "awq")):  # these two take a kernel for their checkpoints
        return wanted
    raise ModelError(
        f"quantization: {path} is already quantized ({own}) and cannot be quantized again; omit quantization for "
        "this model, or use the one it was made from."
    )


def largest_rank(adapter: dict[str, Any]) -> int:
    """Return the largest rank that an adapter's section gives any module; 1 where its method has none."""
    ranks: list[int] = [adapter.get("r") or adapter.get("init_r") or 1, *adapter.get("rank_pattern", {}).values()]
    return max(ranks)


def stored_rank(adapter: dict[str, Any]) -> int:
    """Return the largest rank of an adapter as it is stored: a start that writes the base is kept at twice its rank."""
    start = str(adapter.get("init_lora_weights", ""))
    return largest_rank(adapter) * (2 if start.startswith(REWRITING) else 1)


def _adapter(configuration: Configuration, model: ModelLock) -> dict[str, Any]:
    """Return a method's settings as its model decides them, without what is off."""
    settings = placed(configuration.method, configuration.adapter or {}, model)
    own, step = METHODS[configuration.method], rank_step({"method": configuration.method, **settings})
    if own.rank and settings[own.rank] % step:
        raise ModelError(f"{configuration.method}.{own.rank}: {settings[own.rank]} is not a multiple of {step}.")
    on = _on_by_default(METHODS[configuration.method].config)
    # What is off is left out, so that a setting that a new PEFT adds, off by default, changes no key.
    return {
        name: value
        for name, value in settings.items()
        if value is not None and (value or not isinstance(value, (bool, list, dict)) or (value is False and name in on))
    }


@cache
def _on_by_default(config: str) -> frozenset[str]:
    """Return the settings of a PEFT config that are on unless the spec says otherwise."""
    return frozenset(name for name, row in snapshot()[config].items() if row["default"])


def bare_sections(sections: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the model that an adapter is put on."""
    return {part: sections[part] for part in ("model", "quantization", "checkpoint") if part in sections}


def answering_sections(bare: dict[str, Any], model: ModelLock, by_turns: bool = False) -> dict[str, Any]:
    """Return what decides the model that answers: the token that ends an answer is its files' own.

    :param by_turns: an answer ends where a turn of the chat template does, which is the tokenizer's own
    """
    names = ("config", "tokenizer") if by_turns else ("config",)
    own = bare["model"] | {name: _files(model)[name] for name in names}
    return bare if own == bare["model"] else bare | {"model": own}


def data_section(
    configuration: Configuration, lock: DataLock, model: ModelLock, rows: Rows, split: str, base: Path
) -> dict[str, Any]:
    """Return what decides the prepared examples of one split.

    :param base: the spec's directory
    :raises ModelError: when the chat template that the spec names is not there, or has nothing to write
    """
    table = configuration.data
    form = data_format(table, lock)
    section = {
        "digest": lock.digests[rows.source],
        "rows": rows.rule,
        "format": form,
        "template": table.template.model_dump() if table.template else None,
        "columns": table.columns,
        "max_length": table.max_length,
        "too_long": table.too_long,
        # Held-out losses are of the answer alone, so that they compare whatever the training loss was.
        "completion_only_loss": table.completion_only_loss or split != "train",
        **_labels(configuration, lock, form),
        **({"packing": True} if form == "text" and table.packing in (None, True) else {}),
        **({"sample_by": table.sample_by} if table.sample_by != "auto" else {}),
        **({"where": table.where} if table.where else {}),
        **({"task_type": "SEQ_CLS"} if configuration.model.task_type == "SEQ_CLS" else {}),
        **({"unanswerable": unanswerable(table, lock)} if form == "squad" else {}),
        **of_tokenizer(configuration, form, model, base),
    }
    kinds = (lock.kinds or {}).get(rows.source, {})
    loses_answers = table.too_long == "truncate" and form != "text" and configuration.model.task_type != "SEQ_CLS"
    conversations = form == "chat" or section.get("chat_template")
    return section | ({"reading": 2} if conversations or loses_answers or reads_otherwise(section, kinds) else {})


def unanswerable(table: DataTable, lock: DataLock) -> str:
    """Return what a model should write where a passage holds no answer; nothing where no row is so, as the lock knows.

    A prompt that offers it without need is another task: models take the offer.
    """
    known = lock.answers is not None and "unanswerable" not in table.model_fields_set
    return "" if known and not any(lock.unanswerable.values()) else table.unanswerable


def _labels(configuration: Configuration, lock: DataLock, form: str) -> dict[str, Any]:
    """Return the classes of a classification; of a regression, that labels are numbers."""
    if configuration.model.is_regression:
        return {"num_labels": 1}
    return {"labels": named_classes(configuration.data, lock)} if form == "classification" else {}


def named_classes(table: DataTable, lock: DataLock) -> list[list[str]]:
    """Return [value, name] of every class: as the spec names them, or else the data themselves.

    :raises NodeError: when the data have no classes, or some have no name
    """
    return classes(lock.classes(), table.labels or lock.class_names)


def of_tokenizer(configuration: Configuration, form: str, model: ModelLock, base: Path) -> dict[str, Any]:
    """Return what a model's tokenizer decides of the examples of a format: its chat template, and a lent end token."""
    table, writes = configuration.data, configuration.model.task_type == "CAUSAL_LM"
    named = table.chat_template is not None
    can = writes and not table.template and form in CONVERSABLE
    chats = can and (named or (table.format == "auto" and model.chat_template))
    if named and not chats and not (writes and form == "chat"):
        what = "a data.template" if table.template else f'data.format = "{form}"' if writes else 'task_type = "SEQ_CLS"'
        raise ModelError(f"data.chat_template: rows of {what} do not use a chat template.")
    dated = {"date": model.date} if model.date and not named and (chats or form == "chat") else {}
    return {
        **({"chat_template": True} if chats else {}),
        **(_jinja(table.chat_template, base) if table.chat_template else dated),
        **({"end_token": model.end_token} if model.end_token is not None else {}),
    }


def _jinja(name: str, base: Path) -> dict[str, str]:
    """Return the text of a chat template in a file, or the name of one of the tokenizer's."""
    file = base / Path(name).expanduser()
    if file.is_file():
        try:
            return {"jinja": file.read_text(encoding="utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"data.chat_template: {file} cannot be read: {error}") from error
    if file.suffix or "/" in name:
        raise ModelError(f"data.chat_template: there is no file {file}.")
    return {"jinja_name": name}


def data_format(table: DataTable, lock: DataLock) -> str:
    """Return the format of a data set: what the spec says, or what its columns tell.

    :raises NodeError: when no format fits, or the rows are preferences
    """
    if table.format != "auto":
        return table.format
    if table.template:
        return "template"
    if is_preference_set(lock.columns) and not {*PREFERENCES} & {*table.columns.values()}:
        raise NodeError(f"data.format: {preference_set(table.path)}")
    form = detect([*lock.columns, *table.columns], table.path, lock.nested())
    if lock.label == RATING and is_unpaired_preference_set(form, lock.classes()):
        raise NodeError(f"data.format: {unpaired_preference_set(table.path, form, lock.classes())}")
    return form
