"""Do stated claims still hold."""
