"""What several analyses share: the Analysis type, formats, score and factor tables, parts of charts.

What one analysis alone needs stays in its folder; nothing here imports such a folder.
"""
