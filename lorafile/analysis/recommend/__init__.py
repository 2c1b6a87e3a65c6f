"""Which configuration to take under a budget.

`budgets.py` says which configurations are eligible, `choice.py` chooses by tests, `text.py` and `chart.py` show it.
The rule of the choice is in `statistics/choosing.py`.
"""
