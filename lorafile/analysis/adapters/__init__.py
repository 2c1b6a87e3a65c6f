"""What is inside adapters, and what truncating, merging and forgetting cost."""
