"""A module for each kind of node, with a function of the same name: a request and an empty directory in, a result out.

What several kinds share lies in the packages below.
"""
