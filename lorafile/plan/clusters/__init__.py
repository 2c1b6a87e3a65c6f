"""Clusters: what `lora.toml` says of the machines that a study may run on, and what a plan has to know of them."""
