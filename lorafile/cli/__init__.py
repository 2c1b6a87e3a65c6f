"""The command line: one file a command; each parses, calls, and hands the result to a view."""
