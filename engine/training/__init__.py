"""What a training loop consists of: optimizer, curve, checkpoints, the record of a run, a walk through a step's memory.

The loop itself is `nodes/train.py`.
"""
