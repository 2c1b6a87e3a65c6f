"""Several studies on one state as one set of tables.

`comparable.py` says what may stand together, `tables.py` and `union.py` join the tables, `across.py` makes the page's
analyses. What reads the studies' specs and states is in `lorafile/study`.
"""
