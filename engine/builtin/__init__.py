"""The model and the task that ship, and the scripts that made them."""
