"""The tables of what is looked at beside the held-out splits: a reference text, and prompts."""

from typing import Annotated, Literal

from pydantic import Field

from lorafile.specs.tables.data import DataTable, Format, SplitTable, TemplateTable
from lorafile.specs.values import Settings, SplitSize, Text


class ReferenceTable(Settings):
    """A text that training should not make worse: its loss is measured before and after."""

    path: Text = Field(description="As `data.path`.")
    name: str | None = Field(default=None, description="As `data.name`.")
    revision: str | None = Field(default=None, description="As `data.revision`.")
    format: Format = Field(default="auto", description="As `data.format`.")
    template: TemplateTable | None = Field(default=None, description="As `data.template`.")
    columns: dict[str, str] = Field(default={}, description="As `data.columns`.")
    rows: SplitSize = Field(
        default=200,
        description="How many rows: a count, a fraction, or a slice; a draw has the seed `data.split_seed`.",
    )
    sample_by: Literal["auto", "line", "paragraph", "document"] = Field(
        default="auto", description="As `data.sample_by`."
    )
    max_length: Annotated[int, Field(ge=2, lt=2**31)] = Field(default=512, description="As `data.max_length`.")

    def table(self, seed: int) -> DataTable:
        """Return it as a table of data whose rows are a test split; what is too long is cut, and not left out."""
        settings = self.model_dump(exclude={"rows", "template"})
        split = SplitTable(test=self.rows)
        return DataTable(**settings, template=self.template, split=split, split_seed=seed, too_long="truncate")


class PromptsTable(Settings):
    """Prompts whose answers the report shows: the untuned base's beside each configuration's."""

    texts: list[Text] = Field(
        default=[], description="What is asked, put through the data's own format (a chat template, for chat data)."
    )
    path: Text | None = Field(
        default=None,
        description="A .txt file with one prompt in each line, or rows (.jsonl, .json, .csv) with the fields of the "
        "data's format, or with `prompt` alone.",
    )
    private: bool | None = Field(
        default=None, description="Keep prompts and answers out of every report; unset: as `data.private`."
    )
