"""Quality against cost: the efficiency frontier, and what each configuration costs."""
