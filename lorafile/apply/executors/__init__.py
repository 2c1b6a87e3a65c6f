"""Where work is done: the protocol of an executor in base.py, and a file for each way to have groups of nodes done.

What a worker process itself does is `engine.worker`; which groups there are is `apply.work_groups`.
"""
