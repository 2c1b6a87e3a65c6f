"""The tables of a spec, typed."""
