"""What can go wrong under an apply, done to it on purpose; each file prints how often, and what came of it."""
