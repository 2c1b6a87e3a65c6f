"""The tables of what is done with a finished adapter: looked into, truncated, merged. Each is done where it stands."""

from typing import Annotated, Literal

from pydantic import Field

from lorafile.specs.values import Number, Positive, PositiveNumber, Settings

Dtype = Literal["float32", "bfloat16", "float16"]


class InspectTable(Settings):
    """Look inside every trained adapter: parameters, norms, ranks, and drift of the representations; absent: do not."""

    examples: Positive = Field(
        default=64, description="Held-out examples on whose hidden states tuned model and base are compared (CKA)."
    )


class TruncateTable(Settings):
    """Cut every trained LoRA to smaller ranks by SVD, and evaluate it again, without training; absent: do not."""

    ranks: Annotated[list[Positive], Field(min_length=1)] = Field(
        description="Ranks to keep; one that is not smaller than an adapter's own is left out for it."
    )


class MergeTable(Settings):
    """Merge every trained adapter into its base, and hold the merged model against the attached one; absent: do not."""

    dtypes: Annotated[list[Dtype], Field(min_length=1)] = Field(
        default=["float32", "bfloat16", "float16"], description="Types that the merged weights are stored in."
    )
    examples: Positive = Field(default=64, description="Held-out examples on which the two are compared.")
    max_log_loss_difference: Number | None = Field(
        default=0.01, description="Gate: the log loss may move by so many nats per token (0.01: perplexity by 1 %)."
    )
    min_argmax_agreement: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=0.99, description="Gate: the least share of held-out tokens at which both rank the same token first."
    )
    max_logit_difference: PositiveNumber | None = Field(
        default=None,
        description="Gate: the largest difference of any logit. Absent: not gated, one outlier decides it.",
    )
