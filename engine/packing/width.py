"""How many adapters go together: memory first, then speed, by real steps and answers of throwaway adapters."""

import traceback
from collections.abc import Callable

from lorafile.engine.model.base import Bases
from lorafile.engine.model.peak_memory import is_out_of_memory
from lorafile.engine.packing.trials import TIMED, Answering, Made, Speed, Training
from lorafile.engine.request import PackSizes, Report, Request, Stopped

_GAIN = 1.1  # what a doubling has to bring
_SHARE = 0.05  # of the work that it decides, at most, may the measurement take


def measured(replicates: list[list[Request]], bases: Bases, report: Report) -> PackSizes:
    """Return how many of some replicates go together best; one by one where it cannot be told, or is not worth it.

    Where there are answers to write, these decide how many predict at a time; else as many as train.

    :raises Stopped: when the work is to end
    """
    trains = [request for one in replicates for request in one if request.kind == "train"]
    if len(trains) < 2:
        return PackSizes()
    try:
        with bases.proven(trains[0].settings, trains[0].paths) as base:
            made = Made(base, trains)
            training = Training(made, report)
            train, found = widest(training.speed, training.most, training.steps)
            told, predict = _sentence("trained", train, found, "tokens/s"), train
            writers = [request for one in replicates for request in one if _writes(request)]
            if writers:
                answering = Answering(made, writers, report)
                width, found = widest(answering.speed, lambda: len(trains), answering.steps)
                predict = width if found else predict
                told += _sentence("asked", width, found, "answers/s")
    except Stopped:
        raise
    except Exception as error:  # a run that fails says so itself, with an outcome of its own
        traceback.print_exc()
        return PackSizes(why=f"Adapters are trained one by one: how a pack does was not found out ({error}).")
    return PackSizes(train, predict, told.strip())


def _writes(request: Request) -> bool:
    return request.kind == "predict" and request.settings["task"]["output"] == "generation"


def widest(speed: Callable[[int], Speed], most: Callable[[], int], steps: int) -> tuple[int, dict[int, Speed]]:
    """Return the width beyond which a doubling gains too little, and what was measured at 1, 2, 4, … until then.

    :param most: so many there are, or memory holds; asked again after each measurement
    :param steps: how many steps of one adapter the work has that this decides: little is not worth to be measured
    """
    each = 1 + TIMED
    if 3 * each > _SHARE * steps:  # of one, and of two
        return 1, {}
    width, found, spent = 1, {1: speed(1)}, 0.0
    while (wider := min(2 * width, most())) > width:
        spent += each * found[width].seconds
        if spent + 2 * each * found[width].seconds > _SHARE * steps * found[1].seconds:
            break
        try:
            found[wider] = speed(wider)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        if found[wider].rate < _GAIN * found[width].rate:
            break
        width = wider
    return width, found


def _sentence(what: str, width: int, found: dict[int, Speed], unit: str) -> str:
    if not found:
        return ""
    if len(found) == 1:
        seconds = found[1].seconds
        return (
            f" Adapters are {what} one by one: {seconds:.2g} s with one, and two were not worth a trial or did not fit."
        )
    told = ", ".join(f"{_rounded(one.rate)} {unit} with {number}" for number, one in found.items())
    lead = f"{width} adapters are {what} at a time" if width > 1 else f"Adapters are {what} one by one"
    return f" {lead}, as measured: {told}."


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2g}"
