"""Which configuration to take under a budget."""
