"""Do stated claims still hold.

`claims.py` is the section and its record, `checks.py` each thing that has to hold. The format of the committed
record is in `results/claims_file.py`.
"""
