"""Several runs trained or predicted together on one base."""
