"""Experiment trackers: an apply's runs, sent to Weights & Biases, MLflow or TensorBoard (docs/tracking.md).

A reporter watches the apply and makes a record of each run; a sender for each tracker, all of them in one thread, hands
records to a process that loads the tracker's library. One file for each tracker; nothing here changes a key or fails an
apply. Each library has a process to itself: one that kills its process, or holds it up until the apply ends, must cost
the other trackers nothing.
"""
