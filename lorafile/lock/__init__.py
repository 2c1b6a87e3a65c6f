"""Models and data by content: the lock beside a spec."""
