"""Weights of the base that a component trains in place: two sets of values, one of them in the model.

The base's values are copied only when asked for (`remember`), since a copy costs as much memory as the weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from finetrial.errors import ModelError


class Swap:
    """The parameters of one component, their values in the base (once remembered), and its own while switched off."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._base: dict[str, Tensor] | None = None
        self._own: dict[str, Tensor] | None = None  # while switched off

    def remember(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Copy the present values as the base's."""
        self._base = _values(parameters)

    def restore(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put the base's values back. Raises ModelError if they were not remembered."""
        _fill(parameters, self._remembered())

    def set_active(self, parameters: Mapping[str, nn.Parameter], active: bool) -> None:
        """Put the base's values, or the component's own, into the model."""
        base = self._remembered()
        if not active and self._own is None:
            self._own = _values(parameters)
            _fill(parameters, base)
        elif active and self._own is not None:
            _fill(parameters, self._own)
            self._own = None

    def _remembered(self) -> dict[str, Tensor]:
        if self._base is None:
            raise ModelError(f"{self._name} changed the base's own weights, and no copy of them was kept",
                             "call remember() right after attaching, before training or loading")
        return self._base


def _values(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@torch.no_grad()
def _fill(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
