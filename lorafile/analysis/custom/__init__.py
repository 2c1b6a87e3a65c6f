"""A user's own analysis, and the tables it is given."""
