"""Several studies on one state as one set of tables.

`comparable.py` says what may stand together, `union.py` joins the tables, `across.py` makes the page's analyses. What
reads the studies' specs and states is in `lorafile/study`.
"""
