"""What several analyses share: the Analysis type, formats, score and factor tables, parts of charts."""
