"""The table of data: where examples are, how they become text, and which are for what."""

import codecs
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lorafile.specs.catalogue import PREFIX, catalogue, with_catalogue_settings
from lorafile.specs.row_filter import Condition, parse_where
from lorafile.specs.values import Length, Natural, Settings, SplitSize, Text

Format = Literal["auto", "alpaca", "chat", "classification", "completion", "guanaco", "question", "squad", "text"]
SampleBy = Literal["auto", "line", "paragraph", "document"]


class TemplateTable(Settings):
    """Your own template: `{column}` stands for the text of that column."""

    prompt: str = Field(description="The text that the model reads, for example `Q: {question}\\nA:`.")
    completion: str = Field(description="The expected answer, for example ` {answer}`.")


class SplitTable(Settings):
    """Which examples are for training, for choosing (validation), and for the final results (test)."""

    train: SplitSize | None = Field(
        default=None,
        description="A count, a fraction, or a slice of one of the data's own splits, such as `train[:80%]`.",
    )
    validation: SplitSize | None = Field(default=None, description="Like `train`; drawn before the train split.")
    test: SplitSize | None = Field(default=None, description="Like `train`; drawn first of all.")


def _entry(name: str) -> str:
    if name not in catalogue():
        raise ValueError(f"a name from the catalogue ({', '.join(catalogue())})")
    return name


def _path(path: str) -> str:
    if path.startswith(PREFIX):
        _entry(path.removeprefix(PREFIX))
    return path


def _encoding(name: str) -> str:
    try:
        codecs.lookup(name)
    except (LookupError, ValueError):
        raise ValueError('the name of an encoding that Python knows, such as "latin-1" or "utf-16"') from None
    return name


def _where(condition: Condition) -> Condition:
    parse_where(condition)
    return condition


class DataTable(Settings):
    """The examples, and how they are turned into text."""

    path: Annotated[Text, AfterValidator(_path)] = Field(
        description="A name from the catalogue (`lora data list`); a hub id; a JSONL, JSON, CSV, TSV, Parquet, Arrow "
        "or text file (text formats also compressed: .gz, .bz2, .xz, .zst); a directory with one file per split, with "
        "`configs:` in its README.md, or written by `save_to_disk`; or `builtin:facts`."
    )
    like: Annotated[str, AfterValidator(_entry)] | None = Field(
        default=None,
        description="For a local copy of a data set from the catalogue (`lora data list`): its name. The format, "
        "columns, labels and splits default to those of that data set.",
    )
    name: str | None = Field(
        default=None,
        description="The configuration of a data set that has several: a `config_name` in its README.md, or a "
        "directory.",
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit on the hub; the lock pins the commit."
    )
    format: Format = Field(
        default="auto",
        description="`alpaca` (instruction, input, output), `chat` (messages or ShareGPT's conversations, through the "
        "tokenizer's chat template), `classification` (text, or sentence1 and sentence2; label), `completion` (prompt, "
        "completion), `guanaco` (text with `### Human:` and `### Assistant:`), `question` (question, answer), `squad` "
        "(context, question, answers), `text`. `auto` decides by the columns, and applies the tokenizer's chat "
        "template, if it has one, to `alpaca`, `completion`, `question` and `squad`.",
    )
    template: TemplateTable | None = Field(
        default=None,
        description="Your own template instead of a format's. With `classification` it can use {label}, with `squad` "
        "{answer} and {unanswerable}.",
    )
    chat_template: Text | None = Field(
        default=None,
        description="The chat template to use instead of the tokenizer's own: a file (`.jinja`), relative to the spec, "
        "or the name of one of the tokenizer's chat templates.",
    )
    labels: dict[str, str] = Field(
        default={}, description="`classification`: names of the classes, as value = name. Unset: the data's own values."
    )
    packing: bool | None = Field(
        default=None,
        description="Train on rows of up to `max_length` tokens that hold several examples, none of which attends to "
        "another. Unset: true for `text`, whose documents fill blocks that count as examples, unless the model cannot "
        "separate them; false for other formats, where each optimizer step puts its own examples into rows.",
    )
    sample_by: SampleBy = Field(
        default="auto",
        description="What counts as a document in a .txt file. `auto`: a paragraph if there are blank lines, else a "
        "line.",
    )
    encoding: Annotated[str, AfterValidator(_encoding)] | None = Field(
        default=None, description="The encoding of text files. Unset: UTF-8."
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        default=None,
        description="The column separator of CSV, TSV and .txt tables. Unset: a tab in .tsv; a comma in .csv, or a "
        "semicolon or tab if its first line has no comma. A .txt file is a table if this is set, or if `format` needs "
        "columns.",
    )
    column_names: list[Text] = Field(
        default=[],
        description="Column names for tables without a header line. A file with a different number of columns is "
        "expected to have its own header.",
    )
    field: Text | None = Field(
        default=None, description="For a JSON file that holds an object: the key whose value is the list of rows."
    )
    where: Annotated[str | dict[str, list[Any]], AfterValidator(_where)] | None = Field(
        default=None,
        description="Which rows to read: a comparison of one column (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`), such as "
        '`"label >= 0"`, or the allowed values of columns, such as `{ label = [0, 1, 2] }`. Excluded rows are counted; '
        "a missing value never matches.",
    )
    unanswerable: str = Field(
        default="unanswerable",
        description="`squad`: the answer to give if the passage holds none, as the prompt explains. Empty, or unset "
        "for data in which every row has an answer: the prompt does not mention it.",
    )
    columns: dict[str, str] = Field(
        default={}, description="Column names: the format's field = the column that holds it."
    )
    split: SplitTable = Field(
        default=SplitTable(), description="Sizes of the splits. Unset: the data's own splits, or 80/10/10 %."
    )
    cluster: str | None = Field(
        default=None,
        description="The column that groups rows: rows of a group stay in one split when Lorafile draws the splits, "
        "and count as one unit in significance tests. Unset: `context` for `squad`; empty: none.",
    )
    split_seed: Natural = Field(default=0, description="Seed for drawing the splits; study seeds do not affect it.")
    max_length: Length = Field(default=512, description="Maximum number of tokens in an example.")
    too_long: Literal["error", "drop", "truncate"] = Field(
        default="error",
        description="What to do with longer examples. The report counts those dropped or truncated.",
    )
    completion_only_loss: bool = Field(default=True, description="Exclude prompt tokens from the loss.")
    private: bool = Field(
        default=False,
        description="Keep all text from the data out of reports, trackers and exports. The state keeps what it needs.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_catalogue(cls, table: Any) -> Any:
        """Fill in what the catalogue says of a set that is named."""
        return with_catalogue_settings(table) if isinstance(table, dict) else table
