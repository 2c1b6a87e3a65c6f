"""Several studies on one state as one set of tables."""
