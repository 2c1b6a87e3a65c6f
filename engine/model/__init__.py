"""A base and what is put on it: loading, quantization, adapters and how they begin, heads, losses, memory.

Training and inference build on this; nothing here knows of optimizers or of nodes.
"""
