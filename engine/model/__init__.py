"""A base and what is put on it: loading, quantization, adapters, losses."""
