"""The noise floor: other seeds, other examples, the machine alone.

`floors.py` measures it; sentences and tables are in `noise.py`. Which differences are real is judged in `compare`.
"""
