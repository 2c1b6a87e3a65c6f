"""File formats and safe writing: JSON lines, digests, atomic replacement, the directory of an unfinished run.

Nothing here knows studies, plans or states; functions take paths and plain values.
"""
