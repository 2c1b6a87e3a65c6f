"""Metrics: pure functions of stored predictions, without torch.

`registry.py` is the list; a user's own metric runs in a process of its own (`custom.py`, `runner.py`).
"""
