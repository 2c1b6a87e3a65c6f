"""Experiment trackers: an apply's runs, sent to Weights & Biases, MLflow or TensorBoard (docs/tracking.md).

A reporter watches the apply and makes a record of each run; a sender for each tracker hands records, from a thread, to
a process that loads the tracker's library. One file for each tracker; nothing here changes a key or fails an apply.
"""
