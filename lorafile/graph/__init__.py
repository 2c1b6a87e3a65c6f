"""The nodes of a study, each under its key: a file for each kind of node, and `build.py`, which puts them together.

`graph.py` is the finished graph, and answers what reads what; `builder.py` is the graph while it is filled. Settings
are resolved here (`settings.py`), because a key is made of resolved settings.
"""
