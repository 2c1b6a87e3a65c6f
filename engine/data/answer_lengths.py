"""How long the answers of a split are, in tokens: what `evaluate.max_new_tokens` has to have room for."""

from statistics import median

from lorafile.engine.data.encode import Encoded


def answer_lengths(examples: list[Encoded]) -> dict[str, int | float]:
    """Return median, 95th percentile and most of the tokens after each prompt, with the one that ends an answer.

    Nothing where there are no answers: of raw text, and of what a classification head reads.
    """
    lengths = sorted(len(example.input_ids) - example.prompt for example in examples)
    if not lengths or not any(example.prompt for example in examples) or not lengths[-1]:
        return {}
    nearest_rank = lengths[-(-len(lengths) * 95 // 100) - 1]
    return {"median_answer": median(lengths), "p95_answer": nearest_rank, "longest_answer": lengths[-1]}
