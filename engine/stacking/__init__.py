"""Several LoRA adapters as stacked matrices on one base, and which can go together.

Used to train packs and to predict with stored adapters without PEFT.
"""
