"""Tables for other tools, bundles for other states."""
