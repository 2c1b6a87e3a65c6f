"""What is inside adapters, and what truncating, merging and forgetting cost.

One file for each analysis of stored adapters, from the tables of `Results`. The adapters themselves are looked into
by the engine's nodes, not here.
"""
