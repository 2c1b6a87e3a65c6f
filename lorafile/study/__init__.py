"""The Python API: what can be done with a study, one file for each."""
