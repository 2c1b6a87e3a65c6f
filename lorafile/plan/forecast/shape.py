"""What the forecast has to know of a node's model and data."""

import math
from dataclasses import dataclass
from typing import Any

from lorafile.graph.graph import Graph, GraphNode
from lorafile.graph.parameter_count import adapter_parameters, trained_adapter
from lorafile.graph.target_modules import adapted_modules, of_pattern
from lorafile.lock.lockfile import SIZES, ModelLock, identity
from lorafile.plan.forecast.lengths import packed_text
from lorafile.specs import Configuration
from lorafile.specs.tables.train import PACKED_ROW_LENGTH
from lorafile.state import Attempt

KINDS = ("train", "predict", "profile", "inspect", "merge")  # those that load a model
Adapter = dict[str, Any]
_CHARACTERS, _TEMPLATE = 3, 8  # of a token, and tokens that a template adds: rather too many than too few


@dataclass(frozen=True)
class Reach:
    """The part of a model that an adapter reads and that gradients go through.

    :ivar modules: adapted linear layers
    :ivar inputs: their input features in all
    :ivar distinct: the same where layers that read one tensor (queries, keys and values) count once
    :ivar between: features between the two factors in all: the ranks
    :ivar blocks: those that gradients go through, from the first that has something to train to the last
    """

    modules: int
    inputs: int
    distinct: int
    between: int
    blocks: int


@dataclass(frozen=True)
class Shape:
    """A node's model and data, as far as time and memory depend on them.

    :ivar linear: weights of the linear layers inside blocks; `widest` is the largest of them
    :ivar values: width of keys and values
    :ivar adapter: trainable parameters
    :ivar method: of the configuration
    :ivar reach: what the adapter touches of the model
    :ivar tokens: mean tokens of an example, `longest` of any; `supervised`: share of them in the loss
    :ivar longest_answer: the most tokens that one is to be answered with
    """

    model: ModelLock
    dtype: str
    layers: int
    hidden: int
    intermediate: int
    values: int
    vocabulary: int
    linear: int
    widest: int
    adapter: int
    method: str
    reach: Reach
    tokens: float
    longest: int
    examples: int
    supervised: float
    longest_answer: float

    @property
    def answer(self) -> float:
        """Mean tokens that an example is to be answered with."""
        return self.tokens * self.supervised


def micro_batch(training: dict[str, Any], shape: Shape) -> tuple[int, int]:
    """Return the rows of the largest micro-batch of a training, and the tokens of each row.

    Packed, the longest examples of a step fill the shortest rows that take the fewest passes.
    """
    size, limit = training["per_device_train_batch_size"], training.get(PACKED_ROW_LENGTH)
    if limit is None:
        return size, shape.longest
    tokens = size * training["gradient_accumulation_steps"] * shape.longest
    passes = math.ceil(tokens / (size * limit))
    return size, min(limit, max(shape.longest, math.ceil(tokens / (size * passes))))


def forward_passes(training: dict[str, Any], shape: Shape) -> int:
    """Return the micro-batches of a mean optimizer step: packed, as many as its rows take."""
    accumulated, limit = int(training["gradient_accumulation_steps"]), training.get(PACKED_ROW_LENGTH)
    return accumulated if limit is None else math.ceil(accumulated * shape.tokens / limit)


class Shapes:
    """Shapes of a graph's nodes; one is worked out once for all that have the same model, adapter and data."""

    def __init__(self, graph: Graph, results: dict[str, Attempt]) -> None:
        self._graph, self._results = graph, results
        self._bases: dict[str, tuple[str, str, str]] = {}  # configuration -> its model, dtype and adapter as text
        self._of_bases: dict[tuple[str, str, str], dict[str, Any]] = {}  # these -> what they decide
        self._made: dict[tuple[str, ...], Shape] = {}
        self._guesses: dict[str, tuple[int, float, float]] = {}  # by what a node reads

    def of(self, node: GraphNode) -> Shape | None:
        """Return the shape of a node's work; None for what needs no model."""
        if node.kind not in KINDS:
            return None
        prepare = node.inputs.get("train") or node.inputs.get("data") or ""
        # Of a harness task, which nothing is prepared for, the node itself says how many rows there are.
        name = (*self._base(node.configuration), prepare or node.key)
        if name not in self._made:
            self._made[name] = self._make(node, prepare)
        return self._made[name]

    def _make(self, node: GraphNode, prepare: str) -> Shape:
        configuration = self._graph.spec.named[node.configuration]
        figures = self._results[prepare].figures if prepare in self._results else {}
        if (read := prepare or node.key) not in self._guesses:
            self._guesses[read] = _guess(self._graph, configuration, self._graph.nodes.get(prepare), node)
        count, mean, longest = self._guesses[read]
        # Packed text is trained block by block.
        examples = int(figures.get("blocks") or figures.get("examples") or count)
        longest, supervised = int(figures.get("longest") or longest), figures.get("supervised_fraction") or 0.5
        return Shape(
            **self._of_base(node.configuration),
            tokens=figures["tokens"] / examples if figures.get("tokens") else mean,
            longest=longest,
            examples=examples,
            supervised=supervised,
            longest_answer=figures.get("longest_answer") or longest * supervised,
        )

    def _base(self, configuration: str) -> tuple[str, str, str]:
        if configuration not in self._bases:
            sections = self._graph.sections[configuration]
            model = identity(self._graph.spec.named[configuration].model)
            self._bases[configuration] = (model, sections["model"]["dtype"], repr(trained_adapter(sections)))
        return self._bases[configuration]

    def _of_base(self, configuration: str) -> dict[str, Any]:
        base = self._base(configuration)
        if base not in self._of_bases:
            model, dtype, _ = base
            adapter = trained_adapter(self._graph.sections[configuration])
            self._of_bases[base] = _of_model(self._graph.lock.models[model], dtype, adapter)
        return self._of_bases[base]


def _of_model(lock: ModelLock, dtype: str, adapter: Adapter) -> dict[str, Any]:
    """Return what a model and an adapter decide of a shape."""
    text = lock.settings.get("text_config") or lock.settings
    text = {key: max(value) if isinstance(value, list) and key in SIZES else value for key, value in text.items()}
    hidden = text.get("hidden_size") or text.get("n_embd") or 1
    heads = text.get("num_attention_heads") or text.get("n_head") or 1
    groups = text.get("num_key_value_heads") or heads
    sizes = [rows * columns for rows, columns in lock.modules.values()]
    layers = text.get("num_hidden_layers") or text.get("n_layer") or 1
    return {
        "model": lock,
        "dtype": dtype,
        "layers": layers,
        "hidden": hidden,
        "intermediate": text.get("intermediate_size") or 4 * hidden,
        "values": (text.get("head_dim") or hidden // heads) * groups,
        "vocabulary": text.get("vocab_size") or 1,
        "linear": sum(sizes),
        "widest": max(sizes, default=0),
        "adapter": adapter_parameters(adapter, lock),
        "method": adapter["method"],
        "reach": reach(adapter, lock, layers),
    }


def _guess(
    graph: Graph, configuration: Configuration, prepare: GraphNode | None, node: GraphNode
) -> tuple[int, float, float]:
    """Return how many examples there are, and mean and longest in tokens: a guess from their characters."""
    if prepare is None:  # a harness task, of which nothing is known before it is loaded
        return node.settings["task"].get("limit", 1000), 100.0, 512.0
    settings = prepare.settings["data"]
    packed = packed_text(graph, prepare) if settings.get("packing") else None
    if packed is not None:
        return packed.blocks, packed.tokens / packed.blocks, min(packed.tokens, settings["max_length"])
    if "prompts" in settings:
        lengths = [len(str(prompt)) for prompt in settings["prompts"]]
        count, characters = len(lengths), [round(sum(lengths) / len(lengths)), max(lengths)]
    else:
        data = graph.lock.data[identity(graph.spec.data(configuration, prepare.split))]
        source = next(split for split, digest in data.digests.items() if digest == settings["digest"])
        count, characters = settings["rows"]["stop"] - settings["rows"]["start"], data.characters[source]
    mean, longest = (min(settings["max_length"], size / _CHARACTERS + _TEMPLATE) for size in characters)
    return count, mean, longest


_OF_THEIR_OWN = ("o_proj", "out_proj", "c_proj", "dense", "dense_4h_to_h", "down_proj", "fc2", "w2", "wo", "proj_out")
_BELOW = ("modules_to_save", "trainable_token_indices", "bias")  # what may be trained below the first adapted block


def reach(adapter: Adapter, model: ModelLock, layers: int) -> Reach:
    """Return what an adapter's section touches of a model with so many blocks."""
    if adapter["method"] in ("head", "none"):
        return Reach(0, 0, 0, 0, 0)
    if adapter["method"] == "ln_tuning" or "target_modules" not in adapter:
        return Reach(0, 0, 0, 0, layers)
    adapted = adapted_modules(adapter, model.modules)
    read = {_tensor(module): model.modules[module][1] for module in adapted}
    rank, patterns = adapter.get("r") or adapter.get("init_r") or 1, adapter.get("rank_pattern", {})
    numbers = [next((int(part) for part in module.split(".") if part.isdigit()), layers) for module in adapted]
    first = 0 if any(adapter.get(name) not in (None, "none") for name in _BELOW) else min(numbers, default=layers)
    return Reach(
        modules=len(adapted),
        inputs=sum(model.modules[module][1] for module in adapted),
        distinct=sum(read.values()),
        between=sum(int(of_pattern(patterns, module, rank)) for module in adapted),
        blocks=layers - min(first, layers),
    )


def _tensor(module: str) -> tuple[str, str]:
    """Return what names the tensor that a layer reads: those of one parent read the same, but for the last ones."""
    parent, _, name = module.rpartition(".")
    return parent, name if name in _OF_THEIR_OWN else ""
