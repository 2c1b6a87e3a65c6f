"""The mathematics of verdicts: arrays in, estimates and probabilities out; knows no spec, no state and no report."""
