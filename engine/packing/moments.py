"""An optimizer's state over one flat row of a stack, told as the run alone would tell it: matrix by matrix."""

from typing import Any

import torch

from lorafile.engine.stacking.stack import Matrices, Row, Stack

Place = tuple[str, int]  # a module's path, and 0 for A or 1 for B


class Moments:
    """The optimizer of one adapter of a stack; the moments of its row, and those of its matrices."""

    def __init__(self, stack: Stack, number: int, row: Row, optimizer: torch.optim.Optimizer) -> None:
        self._stack, self._number, self._optimizer = stack, number, optimizer
        rows = [*row.lora_A, *row.lora_B]  # in the order of the stack's flat tensors
        given = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._index = [next(i for i, one in enumerate(given) if one is parameter) for parameter in rows]
        self._sides = {id(parameter): side for side, part in enumerate((row.lora_A, row.lora_B)) for parameter in part}

    def told(self) -> dict[str, Any]:
        """Return the optimizer's state with a parameter for each matrix, in the order of PEFT's model."""
        held = self._optimizer.state_dict()
        numbers = self._numbers()
        state: dict[int, dict[str, Any]] = {index: {} for index in numbers.values()} if held["state"] else {}
        rows = [held["state"].get(index, {}) for index in self._index]
        for word, first in rows[0].items():
            if first.ndim:
                for place, matrix in _flat(self._stack.cut(self._number, [row[word][0] for row in rows])).items():
                    state[numbers[place]][word] = matrix
            else:
                for values in state.values():
                    values[word] = first.clone()  # safetensors stores no tensor under two names
        return {"state": state, "param_groups": self._groups(held["param_groups"])}

    def put_back(self, told: dict[str, Any]) -> None:
        """Take over the state of an optimizer that had a parameter for each matrix."""
        held, numbers = self._optimizer.state_dict(), self._numbers()
        state: dict[int, dict[str, Any]] = {index: {} for index in self._index} if told["state"] else {}
        for word, first in next(iter(told["state"].values()), {}).items():
            if not first.ndim:
                for values in state.values():
                    values[word] = first.clone()
                continue
            flat = [torch.zeros_like(all_of.values[self._number]) for all_of in self._stack.flats]
            matrices = _paired({place: told["state"][number][word] for place, number in numbers.items()})
            self._stack.fill(self._number, flat, matrices)
            for index, whole in zip(self._index, flat, strict=True):
                state[index][word] = whole[None]
        groups = [
            {**theirs, "params": ours["params"]}
            for theirs, ours in zip(told["param_groups"], held["param_groups"], strict=True)
        ]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _members(self) -> list[list[Place]]:
        """Return the matrices of each of the optimizer's groups."""
        order = [(path, side) for path in self._stack.paths(self._number) for side in (0, 1)]
        sides = [{self._sides[id(one)] for one in group["params"]} for group in self._optimizer.param_groups]
        return [[place for place in order if place[1] in own] for own in sides]

    def _numbers(self) -> dict[Place, int]:
        """Return the number of each matrix among all of an optimizer's parameters."""
        return {place: number for number, place in enumerate(place for group in self._members() for place in group)}

    def _groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        numbers = self._numbers()
        return [
            {**group, "params": [numbers[place] for place in places]}
            for group, places in zip(groups, self._members(), strict=True)
        ]


def _flat(matrices: Matrices) -> dict[Place, torch.Tensor]:
    return {(path, side): matrix for path, pair in matrices.items() for side, matrix in enumerate(pair)}


def _paired(places: dict[Place, torch.Tensor]) -> Matrices:
    return {path: (places[path, 0], places[path, 1]) for path, side in places if side == 0}
