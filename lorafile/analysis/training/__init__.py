"""How training went: loss curves, learning rates, tuned settings, data and prompts.

What it reports was seen on training and validation data; figures on test belong in the other folders.
"""
