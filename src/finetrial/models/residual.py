"""LoRA adapters that start from the base's own weights (PiSSA, OLoRA) and leave the base with the rest.

Attached, a layer computes (W - s B0 A0) x + s B A x with A, B = A0, B0 at first: the base, up to rounding. W is kept, so
the adapter can be switched off or taken out exactly. It is stored as an ordinary LoRA of twice the rank on the untouched
base, s [B, -B0] [A; A0], which is the same change of W (Meng et al. 2024, arXiv 2404.02948, appendix C).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finetrial.models.adapters import PREFIX, WEIGHTS, Adapter, write
from finetrial.models.origin import base_linears
from finetrial.models.params import fill

_A, _B = ".lora_A.weight", ".lora_B.weight"


class ResidualAdapter(Adapter):
    """An adapter whose initialisation peft subtracts from the base. What it keeps of the base stays where the model was."""

    def __init__(self, model: Any, config: Any, name: str, chosen: list[str]) -> None:
        layers = base_linears(model)
        self._whole = {layer: layers[layer][1].weight.detach().clone() for layer in chosen}  # type: ignore[operator]
        super().__init__(model, config, name, chosen, alone=True)
        self._first = {key: tensor.clone() for key, tensor in self.weights().items()}
        for layer, (_, base) in self.base_layers().items():
            base.finetrial_original = self._whole[layer]  # for whoever copies this block
        self._subtract()

    def rewritten(self) -> dict[str, nn.Parameter]:
        """The base's weights that hold the rest."""
        return {f"{layer}.weight": base.weight for layer, (_, base) in self.base_layers().items()}

    def save(self, folder: Path) -> None:
        """As a LoRA of twice the rank on the untouched base."""
        doubled = {}
        for key, tensor in self.weights().items():
            first = self._first[key].to(tensor.device)
            doubled[key] = torch.cat([tensor, first]) if key.endswith(_A) else torch.cat([tensor, -first], dim=1)
        config = copy.copy(self.config)
        config.init_lora_weights = True
        config.r = 2 * self.config.r
        config.lora_alpha = self.config.lora_alpha * (2**0.5 if self.config.use_rslora else 2)
        write(folder, doubled, config)

    def load(self, folder: Path) -> None:
        """Both halves: what was trained, and what it started from."""
        doubled = {key: nn.Parameter(torch.cat([tensor, tensor], dim=0 if key.endswith(_A) else 1))
                   for key, tensor in self.weights().items()}
        fill(doubled, folder / WEIGHTS, "load it with the options that it was trained with")
        with torch.no_grad():
            for key, tensor in self.weights().items():
                dim, sign = (0, 1) if key.endswith(_A) else (1, -1)
                trained, first = doubled[key].detach().chunk(2, dim=dim)
                tensor.copy_(trained)
                self._first[key] = sign * first
        self._subtract()

    def set_active(self, active: bool) -> None:
        super().set_active(active)
        if active:
            self._subtract()
        else:
            self._restore()

    def fold(self) -> None:
        layers = [base for _, base in self.base_layers().values()]
        super().fold()
        for base in layers:
            del base.finetrial_original

    def unload(self) -> None:
        layers = [base for _, base in self.base_layers().values()]
        self._restore()
        super().unload()
        for base in layers:
            del base.finetrial_original

    def _subtract(self) -> None:
        for layer, (adapted, base) in self.base_layers().items():
            key = f"{PREFIX}{layer}"
            first = self._first[key + _B] @ self._first[key + _A] * adapted.scaling[self.name]
            base.weight.data = (self._whole[layer] - _oriented(first, base)).to(base.weight.device)

    def _restore(self) -> None:
        for layer, (_, base) in self.base_layers().items():
            base.weight.data = self._whole[layer].to(base.weight.device, copy=True)


def _oriented(delta: Tensor, base: Any) -> Tensor:
    """(outputs, inputs), turned round for GPT-2's Conv1D."""
    return delta if isinstance(base, nn.Linear) else delta.T
