"""Token ids to batches: stored examples, blocks of text, padding."""
