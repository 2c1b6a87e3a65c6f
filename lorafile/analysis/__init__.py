"""Analyses: pure functions of Results, one folder for each question."""
