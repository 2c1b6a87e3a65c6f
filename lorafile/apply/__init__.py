"""Carrying out a plan: groups of work out to an executor, outcomes back into state."""
