"""Quality against cost: the efficiency frontier, and what each configuration costs.

Which one to take is the question of `recommend`; costs are measured by profiles, not here.
"""
