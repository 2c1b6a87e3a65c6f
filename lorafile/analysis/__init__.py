"""Analyses: pure functions of Results, one folder for each question.

`registry.py` lists the kinds. A folder holds an analysis, its sentences and its chart; what several share is in
`common/`. Estimates and tests are made in `statistics`, pages in `report`; nothing here reads state or a plan.
"""
