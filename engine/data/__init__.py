"""Rows to token ids: files and the hub, formats, templates, tokenizers.

A plan asks these, too, so nothing here imports torch.
"""
