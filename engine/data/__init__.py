"""Rows to token ids, without torch."""
