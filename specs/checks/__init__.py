"""Checks that types cannot make: settings that contradict each other, names that refer to nothing.

Each check adds to one list of `Problems`, so that all of them are reported at once. What needs the model or the data
is checked later, in `graph` and `engine`.
"""
