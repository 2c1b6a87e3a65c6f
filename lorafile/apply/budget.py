"""What an apply may take: hours, or money by an hourly price. What would not end in time is not begun."""

import time
from dataclasses import dataclass, field

from lorafile.errors import LoraError

_HOUR = 3600.0


@dataclass
class Budget:
    """A time on the clock after which nothing runs.

    :ivar seconds: from the moment at which it was made
    :ivar words: how the user put it
    """

    seconds: float
    words: str
    refused: int = 0  # groups that were not begun
    _began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, hours: float | None, cost: float | None, hourly: float | None, devices: int = 1) -> "Budget | None":
        """Return the tighter of two bounds; None where there is none.

        :param cost: in the currency of `hourly`, the price of an hour of one device
        :param devices: for how many an hour is paid: the GPUs that are used, or one machine
        :raises LoraError: when there is a bound on money and no price
        """
        bounds = [] if hours is None else [cls(hours * _HOUR, f"--max-hours {hours:g}")]
        if cost is not None:
            if not hourly:
                raise LoraError(
                    "--max-cost: the price per hour is unknown. Pass, for example, --price 2.50/h, or set a price for "
                    "each kind of device in lora.toml"
                )
            bounds.append(cls(cost / (hourly * devices) * _HOUR, f"--max-cost {cost:g}"))
        return min(bounds, key=lambda budget: budget.seconds, default=None)

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self._began + self.seconds - time.monotonic()

    def allows(self, seconds: float) -> bool:
        """Return whether something that takes so long would end in time; what would not is counted."""
        if seconds <= self.left:
            return True
        self.refused += 1
        return False

    def spent(self) -> bool:
        """Return whether nothing is left, so that what still runs has to stop."""
        if self.left > 0:
            return False
        self.refused = max(1, self.refused)
        return True

    def message(self, left: str) -> str:
        """Return what the user has to know of an apply that it ended.

        :param left: what of the plan is not done
        """
        return f"{self.words} stopped the apply: {left} left that would not finish in time. Run it again to continue."
