"""Models and data by content: the lock file next to a spec, and `lora fetch`.

Here belongs what identifies a model or a data set (digests, revisions, the inventory of modules), read from headers and
files without torch. How rows become examples belongs to `engine.data`.
"""
