"""What a setting does: trends along one factor, effects and interactions of two.

`eligible.py` finds the factors and grids; steps and decompositions are computed apart from their sentences and charts.
Verdicts on pairs belong in `compare`.
"""
