"""The command line: a command parses its options, calls what does the work, and hands the result to a view.

What several commands share is in `command.py`; every text and JSON is in `views/`. No command computes anything itself,
and whatever is slow to import is imported when a command runs.
"""
