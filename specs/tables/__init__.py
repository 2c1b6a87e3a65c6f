"""The tables of a spec as pydantic models: types, defaults and descriptions.

Every setting is declared here once; the schema, the reference and the messages for wrong values are made from it. What
depends on a second setting is checked in `specs.checks`.
"""
