"""Time, memory, disk and energy of what a plan would run, without the device."""
