"""A worker process: its loop, the work that it does, and its channel to the process that applies.

How workers are started and what they are given is `lorafile.apply.executors`; what a node does is `engine.nodes`.
"""
