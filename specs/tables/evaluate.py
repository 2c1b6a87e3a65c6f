"""The tables of measuring: metrics of held-out examples, a reference text, prompts, and cost."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from lorafile.specs.tables.data import DataTable, Format, SampleBy, SplitTable, TemplateTable
from lorafile.specs.values import METRIC_FILE, Length, Natural, Positive, PositiveNumber, Settings, SplitSize, Text

MetricName = Literal[
    "log_loss",
    "perplexity",
    "bits_per_byte",
    "token_accuracy",
    "exact_match",
    "accuracy",
    "f1",
    "matthews_correlation",
    "pearson",
    "spearman",
    "mse",
    "squad_exact",
    "squad_f1",
    "bleu",
    "chrf",
    "rouge1",
    "rouge2",
    "rougeL",
]
Metric = MetricName | Annotated[str, Field(pattern=METRIC_FILE)]
# What a metric reads, where that is more than the loss of any text.
OF_CLASSES = ("accuracy", "f1", "matthews_correlation")
OF_REGRESSIONS = ("pearson", "spearman", "mse")
OF_PASSAGES = ("squad_exact", "squad_f1")
OF_ANSWERS = ("exact_match", *OF_PASSAGES, "bleu", "chrf", "rouge1", "rouge2", "rougeL")
OF_HEADS = ("accuracy", "log_loss")  # of a classification head, where the spec names no metrics
OF_NUMBERS = ("pearson", "mse")  # of a regression, likewise
NEEDS_NUMBERS = 'needs numbers: model.num_labels = 1 with model.task_type = "SEQ_CLS"'
PREDICTS_NUMBERS = f"does not apply to numbers, which model.num_labels = 1 predicts; use {', '.join(OF_REGRESSIONS)}"
# What `exact_match` takes of a text by name, and what splits texts into words for BLEU and ROUGE (sacrebleu's names).
EXTRACTIONS = ("gsm8k", "strict-match", "flexible-extract", "last-number")
Tokenizer = Literal["13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab", "spm", "flores101", "flores200"]
OF_WORDS = ("bleu", "rouge1", "rouge2", "rougeL")
OF_LIKELIHOODS = ("log_loss", "perplexity", "bits_per_byte", "token_accuracy")


def is_metric_file(metric: str) -> bool:
    """Return whether a metric is a user's own file."""
    return metric.endswith(".py")


def metric_label(metric: str) -> str:
    """Return a metric's name in figures and reports: for a file, its name without folder and ending."""
    return PurePosixPath(metric).stem if is_metric_file(metric) else metric


class ReferenceTable(Settings):
    """A text that training should not make worse: its loss is measured before and after."""

    path: Text = Field(description="Like `data.path`.")
    name: str | None = Field(default=None, description="Like `data.name`.")
    revision: str | None = Field(default=None, description="Like `data.revision`.")
    format: Format = Field(default="auto", description="Like `data.format`.")
    template: TemplateTable | None = Field(default=None, description="Like `data.template`.")
    columns: dict[str, str] = Field(default={}, description="Like `data.columns`.")
    rows: SplitSize = Field(
        default=200, description="Rows: a count, a fraction, or a slice; drawn with `data.split_seed`."
    )
    sample_by: SampleBy = Field(default="auto", description="Like `data.sample_by`.")
    max_length: Length = Field(default=512, description="Like `data.max_length`.")

    def table(self, seed: int) -> DataTable:
        """Return it as a table of data whose rows are a test split; what is too long is cut, and not left out."""
        settings = self.model_dump(exclude={"rows", "template"})
        split = SplitTable(test=self.rows)
        return DataTable(**settings, template=self.template, split=split, split_seed=seed, too_long="truncate")


class PromptsTable(Settings):
    """Prompts whose answers the report shows: those of the untuned base next to those of each configuration."""

    texts: list[Text] = Field(
        default=[], description="Prompts, rendered in the data's format (chat data: with the chat template)."
    )
    path: Text | None = Field(
        default=None,
        description="A .txt file with one prompt per line, or rows (.jsonl, .json, .csv) with the fields of the "
        "data's format or only `prompt`.",
    )
    private: bool | None = Field(default=None, description="Keep them out of every report. Unset: like `data.private`.")


class EvaluateTable(Settings):
    """What is measured on held-out examples."""

    metrics: Annotated[list[Metric], Field(min_length=1)] = Field(
        default=["log_loss", "perplexity", "token_accuracy"],
        description="Computed from stored predictions. Unset: accuracy and log_loss for a classification head, pearson "
        "and mse for a regression. A Python file, relative to the spec, is a custom metric.",
    )
    primary: Metric | None = Field(
        default=None, description="The metric that decides verdicts and choices. Unset: the first one."
    )
    extract: Text | None = Field(
        default=None,
        description="The part of a text that `exact_match` compares: `gsm8k` (GSM8K's own rule: the first number after "
        "`#### `, as text), `strict-match` and `flexible-extract` (the filters of lm-evaluation-harness's gsm8k task), "
        "`last-number` (the last number after the last `####`, by value), or a regular expression with one group.",
    )
    tokenize: Tokenizer | None = Field(
        default=None,
        description="The tokenizer for `bleu`, `rouge1`, `rouge2` and `rougeL`: one of sacrebleu's, by name (ROUGE "
        "lowercases its words). Unset: 13a for BLEU, and rouge-score's own for ROUGE, which keeps only a to z and "
        "digits. Use `intl` for scripts with spaces, `zh` for Chinese, `char` for any; `ja-mecab`, `ko-mecab`, `spm`, "
        "`flores101` and `flores200` need additional packages.",
    )
    average: Literal["binary", "macro", "micro", "weighted"] | None = Field(
        default=None, description="How `f1` averages over classes. Unset: binary for two classes, macro for more."
    )
    pos_label: Text | None = Field(
        default=None, description="The positive class of a binary `f1`. Unset: the last one."
    )
    strip_reasoning: bool = Field(
        default=True,
        description="Compare only the text after the reasoning block (`</think>`), if the chat template writes one.",
    )
    metric_timeout: PositiveNumber = Field(
        default=600.0, description="Time limit in seconds for each metric file and split. Not part of any key."
    )
    max_new_tokens: Positive = Field(
        default=64,
        description="Maximum number of tokens in an answer. The plan warns if references are longer, and the report "
        "counts truncated answers.",
    )
    do_sample: bool = Field(
        default=False,
        description="Sample answers instead of taking the most likely token. The seed depends on the study seed and "
        "the example, so an answer never depends on its batch.",
    )
    temperature: PositiveNumber | None = Field(
        default=None, description="`do_sample`: divisor of the logits. Unset: 1."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="`do_sample`: sample from the most likely tokens with this total probability. Unset: 1.",
    )
    top_k: Natural | None = Field(
        default=None, description="`do_sample`: sample from the k most likely tokens. 0: all. Unset: 50."
    )
    num_beams: Positive = Field(default=1, description="Number of beams in beam search. 1: greedy.")
    repetition_penalty: PositiveNumber = Field(
        default=1.0, description="Values above 1 make repeated tokens less likely."
    )
    stop_strings: list[Text] = Field(
        default=[],
        description="Texts that end an answer and are not part of it. Unset: an answer after solved examples "
        "(`none.shots`) ends where the next example would begin.",
    )
    lm_eval_tasks: list[Text] = Field(
        default=[], description="lm-evaluation-harness tasks to run on every model in the study (`lorafile[lm-eval]`)."
    )
    lm_eval_limit: Positive | None = Field(default=None, description="Maximum number of examples per task.")
    lm_eval_num_fewshot: Natural | None = Field(
        default=None, description="Number of examples in their prompts. Unset: the task's own."
    )
    lm_eval_include_path: Text | None = Field(
        default=None, description="A folder with your own tasks, relative to the spec. Its files are part of the key."
    )
    reference: ReferenceTable | None = Field(default=None, description="A text to measure forgetting on.")
    prompts: PromptsTable | None = Field(default=None, description="Prompts whose answers the report shows.")
    per_device_eval_batch_size: Positive | None = Field(
        default=None,
        description="Maximum number of examples at once. Unset: 16, and for predictions as many as fit on the device. "
        "Does not affect results or keys.",
    )


def decoding(evaluate: EvaluateTable) -> dict[str, Any]:
    """Return what decides an answer, as it stands in a key: what is not set is left out."""
    task: dict[str, Any] = {"max_new_tokens": evaluate.max_new_tokens, "do_sample": evaluate.do_sample}
    if evaluate.do_sample:  # GenerationConfig's own defaults
        task |= {
            "temperature": 1.0 if evaluate.temperature is None else evaluate.temperature,
            "top_p": 1.0 if evaluate.top_p is None else evaluate.top_p,
            "top_k": 50 if evaluate.top_k is None else evaluate.top_k,
        }
    for name in ("num_beams", "repetition_penalty"):
        task |= {name: getattr(evaluate, name)} if getattr(evaluate, name) != 1 else {}
    return task | ({"stop_strings": evaluate.stop_strings} if evaluate.stop_strings else {})


class ProfileTable(Settings):
    """How cost is measured: with nothing else on the device, in a fresh process."""

    enabled: bool = Field(default=True, description="Measure time, memory and latency of each configuration.")
    warmup_steps: Natural = Field(default=3, description="Training steps before the timed ones.")
    steps: Positive = Field(default=10, description="Timed training steps.")
    new_tokens: Positive = Field(default=16, description="Tokens generated for each latency measurement.")
    repeats: Positive = Field(default=5, description="Latency measurements; their median is kept.")
