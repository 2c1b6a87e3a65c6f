"""Terms of statistics and of the field, each with what it means here: a tooltip where one stands, and a list."""

import re

TERMS = {
    "exact match": "Share of answers that equal the reference after the declared clean-up.",
    "log loss": "Mean negative log likelihood of the reference, in nats for each token; lower is better.",
    "perplexity": "The exponential of the log loss; lower is better.",
    "margin": "The largest difference that does not matter, as the spec declares it.",
    "family": "All comparisons that share one error rate: at most that share of such studies makes any false claim.",
    "Holm": "Holm's procedure: tests the p values of a family so that one error rate covers all of them.",
    "95 % interval": "A range that covers the true value in 95 of 100 such studies with other seeds and examples.",
    "power": "The probability that a true difference of the given size is found.",
    "inconclusive": "Neither a difference nor its absence within the margin was shown.",
    "equivalent": "Shown to differ by less than the margin in either direction.",
    "non-inferior": "Shown to be worse by less than the margin, if worse at all.",
    "frontier": "The configurations that no other one beats in both quality and cost.",
    "clusters": "Groups of examples that belong together and count as one unit: data.cluster.",
    "degrees of freedom": "How much data a variance estimate rests on; few mean wide intervals.",
    "standard deviation": "The spread of individual values around their mean.",
    "exploratory": "Outside the error rate that the study controls: a hint for the next study, not a conclusion.",
    "noise floor": "How much a result changes when only the seed or the examples change.",
    "effective batch": "Examples in one optimizer step: micro-batch × accumulation.",
    "bracketed": "Both a lower and a higher learning rate were tried and are worse.",
    "attached": "The adapter is computed next to the base's weights.",
    "merged": "The adapter is added into the base's weights.",
    "untuned": "The base model without any training.",
}
_PATTERN = re.compile(r"(?<![\w/=.])(" + "|".join(sorted(map(re.escape, TERMS), key=len, reverse=True)) + r")(?![\w=])")


def split(text: str) -> list[str]:
    """Return a text in parts, of which every second one is a term."""
    return _PATTERN.split(text)
