"""The study at a glance: the summary, its chart, and the questions people ask.

It puts together what other analyses found, and computes no figure of its own.
"""
