"""What makes the fork server the first of a session: signals to the terminal's or scheduler's group pass it by."""

import contextlib
import os

with contextlib.suppress(OSError):  # it is the first of one
    os.setsid()
