"""State to plain tables: the one input of analyses and of the report.

`gather.py` makes the `Results` of `results.py` from a plan and its state; each other file makes some of its tables.
Nothing here compares, tests or draws.
"""
