"""A worker process, and its channel to the process that applies."""
