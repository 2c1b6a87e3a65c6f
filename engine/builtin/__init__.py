"""The model and the task that ship (`facts-llama/`, `facts/`), and the script that made them.

They are what `builtin:` names in a spec, found by `data/sources.py`. Nothing imports the script: code that a study runs
belongs in the other packages.
"""
