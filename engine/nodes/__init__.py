"""One file for each kind of node that runs on a device."""
