"""Several LoRA adapters as stacked matrices on one base, and which can go together."""
