"""Executors: the protocol in base.py, and one implementation a file."""
