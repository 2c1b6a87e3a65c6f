"""Metrics: pure functions of stored predictions, without torch."""
