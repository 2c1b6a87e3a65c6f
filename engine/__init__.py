"""What runs on the device: the only importers of torch, transformers and peft."""
