"""Token ids to batches: stored examples, packed blocks of text, padding, order.

No model is run here but for the probe that tells whether it separates the documents of a block.
"""
