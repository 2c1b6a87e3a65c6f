"""A user's own analysis, and the tables that it is given: their columns are promised, what it returns is checked.

No analysis that ships belongs here.
"""
