"""Analyses: pure functions of a study's results, one file for each question."""
