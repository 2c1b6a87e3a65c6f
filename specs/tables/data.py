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
    """A template of one's own: `{column}` stands for the column's text."""

    prompt: str = Field(description="What the model reads, for example `Q: {question}\\nA:`.")
    completion: str = Field(description="What it should answer, for example ` {answer}`.")


class SplitTable(Settings):
    """Which examples are for training, for choosing (validation), and for the final figures (test)."""

    train: SplitSize | None = Field(
        default=None, description="A count, a fraction, or a slice such as `train[:80%]` of the data's own split."
    )
    validation: SplitSize | None = Field(default=None, description="As `train`; drawn before the train split.")
    test: SplitSize | None = Field(default=None, description="As `train`; drawn first of all.")


def _entry(name: str) -> str:
    if name not in catalogue():
        raise ValueError(f"a name of the catalogue ({', '.join(catalogue())})")
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
    """The examples, and how they become text."""

    path: Annotated[Text, AfterValidator(_path)] = Field(
        description="A name of the catalogue (`lora data list`); a hub id; a JSONL, JSON, CSV, TSV, Parquet, Arrow or "
        "text file, texts also compressed (.gz, .bz2, .xz, .zst); a directory with one file for each split, with a "
        "README.md that has `configs:`, or of `save_to_disk`; or `builtin:facts`."
    )
    like: Annotated[str, AfterValidator(_entry)] | None = Field(
        default=None,
        description="A name of the catalogue (`lora data list`): format, columns, labels and splits are that set's, "
        "where the spec does not say; for a local copy of it.",
    )
    name: str | None = Field(
        default=None,
        description="The configuration of a data set that has several: a `config_name` of its README.md, or a "
        "directory.",
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit on the hub; the lock keeps the commit."
    )
    format: Format = Field(
        default="auto",
        description="`alpaca` (instruction, input, output), `chat` (messages or ShareGPT's conversations, through the "
        "tokenizer's chat template), `classification` (text, or sentence1 and sentence2; label), `completion` (prompt, "
        "completion), `guanaco` (text with `### Human:` and `### Assistant:`), `question` (question, answer), `squad` "
        "(context, question, answers), `text`; `auto` tells by the columns, and puts `alpaca`, `completion`, "
        "`question` and `squad` through the chat template of a tokenizer that has one.",
    )
    template: TemplateTable | None = Field(
        default=None,
        description="A template of one's own, instead of a format's; with `classification` it may name {label}, "
        "with `squad` {answer} and {unanswerable}.",
    )
    chat_template: Text | None = Field(
        default=None,
        description="The chat template to use instead of the tokenizer's own: a file (`.jinja`), relative to the spec, "
        "or the name of one of several that the tokenizer has.",
    )
    labels: dict[str, str] = Field(
        default={}, description="`classification`: names of the classes, value = name; absent: the data's own values."
    )
    packing: bool = Field(
        default=True,
        description="`text`: several documents in a block of `max_length` tokens while training, none of which sees "
        "another; a model that cannot keep them apart is trained on one document in a row.",
    )
    sample_by: SampleBy = Field(
        default="auto",
        description="What a document of a .txt file is; `auto` is a paragraph where blank lines separate any, else a "
        "line.",
    )
    encoding: Annotated[str, AfterValidator(_encoding)] | None = Field(
        default=None, description="The encoding of text files; absent: UTF-8."
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        default=None,
        description="What separates the columns of CSV, TSV and .txt tables; absent: tabs in .tsv, commas in .csv, or "
        "semicolons or tabs where its first line has no comma. A .txt file is a table where this is set, or where "
        "`format` is one that plain text cannot have.",
    )
    column_names: list[Text] = Field(
        default=[],
        description="Names of the columns of tables without a header line; a file with another number of columns has "
        "a header of its own.",
    )
    field: Text | None = Field(
        default=None, description="Of a JSON file that holds an object: the name whose value is the rows."
    )
    where: Annotated[str | dict[str, list[Any]], AfterValidator(_where)] | None = Field(
        default=None,
        description="Which rows are read: a comparison of one column (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`), such as "
        '`"label >= 0"`, or the values that columns may have, such as `{ label = [0, 1, 2] }`. Rows that are left out '
        "are counted; a missing value fulfils nothing.",
    )
    unanswerable: str = Field(
        default="unanswerable",
        description="`squad`: what to write where the passage holds no answer; the prompt says so. Empty, or unset for "
        "data in which every row has an answer: the prompt says nothing.",
    )
    columns: dict[str, str] = Field(default={}, description="Renames: the format's field = the column that holds it.")
    split: SplitTable = Field(
        default=SplitTable(), description="Sizes of the splits; unset: the data's own, or 80/10/10 %."
    )
    cluster: str | None = Field(
        default=None,
        description="The column by which rows belong together: such rows stay in one split where Lorafile draws the "
        "splits, and count as one where significance is judged. Unset: `context` of `squad`; empty: none.",
    )
    split_seed: Natural = Field(default=0, description="Seed of the draw of splits; study seeds never move it.")
    max_length: Length = Field(default=512, description="The most tokens of one example.")
    too_long: Literal["error", "drop", "truncate"] = Field(
        default="error",
        description="What happens to an example of more tokens; what is dropped or cut is counted in the report.",
    )
    completion_only_loss: bool = Field(default=True, description="Leave prompt tokens out of the loss.")
    private: bool = Field(
        default=False,
        description="Keep every text of the data out of reports, trackers and exports; state keeps what it needs.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_catalogue(cls, table: Any) -> Any:
        """Fill in what the catalogue says of a set that is named."""
        return with_catalogue_settings(table) if isinstance(table, dict) else table
