"""Carrying out a plan: groups of work out to an executor, outcomes back into state.

The applier decides what goes out and records what comes back; executors have it done; trackers and progress bars watch.
What would be done is `plan`; what a node does is `engine`.
"""
