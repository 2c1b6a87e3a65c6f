"""One file for each kind of node that runs on a device: a request and an empty directory in, a result out.

What several kinds share lies in the packages below.
"""
