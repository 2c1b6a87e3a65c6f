"""The mathematics of verdicts: arrays in, estimates and probabilities out; knows no spec, no state and no report.

`run_variance.py` says what a configuration borrows of the others' spread, `crossed.py` estimates differences,
`probabilities.py` tests them, `deciding.py` and `choosing.py` conclude, `planning.py` sizes studies. Words for a reader
and look-ups in tables belong in `analysis`.
"""
