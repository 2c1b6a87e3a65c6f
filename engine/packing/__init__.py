"""Several runs trained together on one base, each as it would be alone, and how many at a time pay.

What a stack of adapters computes is `stacking`; what one run does alone is `nodes/train.py`, and `training` below it.
"""
