"""A user's own analysis, and the tables it is given.

`tables.py` holds the columns that users are promised; what they return is checked in `custom.py`. No analysis that
ships belongs here.
"""
