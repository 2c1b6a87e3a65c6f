"""Is everything as it was stored: verify, repair, and what was left behind."""
