"""What would be done and why.

A plan is inert data (`plan.py`); `planner.py` makes it by a list of steps, each with a file of its own. Next to them
lies what is done with a plan: its JSON (`document.py`), files of it (`planfile.py`), diffs, names, the sums of its
cost. Nothing here runs a node or prints.
"""
