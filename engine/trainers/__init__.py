"""Programs that train in the place of the built-in loop: carried out, watched, and checked.

`train.py` is the node; `sandbox.py` runs a program in a process of its own, without importing anything of lorafile.
"""
