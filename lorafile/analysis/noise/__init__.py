"""The noise floor: other seeds, other examples, the machine alone."""
