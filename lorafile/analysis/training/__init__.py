"""How training went: loss curves, learning rates, tuned settings, data and prompts."""
