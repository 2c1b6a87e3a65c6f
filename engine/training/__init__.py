"""What a training loop consists of: optimizer, curve, checkpoints."""
