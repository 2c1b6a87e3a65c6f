"""`lora state verify` and its repair: objects, rows and files compared with what they should be.

What every reader checks (the index's checksum and log, an object's digest) stands above, where it is read.
"""
