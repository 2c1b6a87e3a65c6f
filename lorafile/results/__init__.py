"""State to plain tables: the one input of analyses and of the report."""
