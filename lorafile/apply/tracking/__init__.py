"""Experiment trackers: what each is told of a run, sent by a process of its own."""
