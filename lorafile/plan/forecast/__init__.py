"""Time, memory, disk and energy of what a plan would run, without the device.

Arithmetic over a model's shape (`shape.py`, `memory.py`, `time.py`), a step on the meta device for large models
(`meta_device.py`), and the correction by what state has measured (`calibration.py`).
"""
