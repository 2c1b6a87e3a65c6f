"""The nodes of a study, each under its key; one file for a kind of node."""
