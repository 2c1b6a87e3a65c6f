"""File formats and atomic writing."""
