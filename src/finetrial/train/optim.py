"""Optimizers: AdamW, in fp32 or with its moments in 8 bits, and Muon for the matrices inside blocks with AdamW for
everything else.

All take one learning rate on AdamW's scale: Muon's update is rescaled to the root mean square that AdamW's has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from finetrial.errors import MissingPackage, UserError
from finetrial.models import blocks
from finetrial.train.config import BITSANDBYTES, EIGHT_BIT, Training
from finetrial.train.precision import DTYPES

MUON_MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024, "Muon", the quintic's coefficients


def optimizers(model: nn.Module, parameters: Mapping[str, nn.Parameter], config: Training,
               ) -> list[torch.optim.Optimizer]:
    """The optimizers of `parameters` (by name). Weight decay acts on matrices, never on norms and biases.

    Raises UserError for one that the device does not have, MissingPackage for one whose package is missing.
    """
    matrices = _block_matrices(model, parameters) if config.optimizer == "muon" else {}
    rest = {name: parameter for name, parameter in parameters.items() if name not in matrices}
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices.values(), weight_decay=config.weight_decay, products=DTYPES[config.precision]))
    if rest:
        groups = [{"params": [p for p in rest.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
                  {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0}]
        make, more = _adamw(config, next(iter(rest.values())).device)
        made.append(make([group for group in groups if group["params"]], lr=0.0, betas=(config.beta1, config.beta2),
                         eps=config.epsilon, **more))
    return made


def _adamw(config: Training, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """The class of AdamW that is asked for, with the options that it alone has."""
    if config.optimizer != EIGHT_BIT:
        if config.precision != "fp16":
            return torch.optim.AdamW, {"fused": True}
        return torch.optim.AdamW, {"fused": False, "foreach": device.type == "cuda"}  # fused, it would skip without a word
    if device.type != "cuda":
        raise UserError(f"optimizer {EIGHT_BIT} is not possible on the device {device.type}",
                        "use the optimizer adamw, or a CUDA device")
    if find_spec(BITSANDBYTES) is None:
        raise MissingPackage(BITSANDBYTES, f"the optimizer {EIGHT_BIT}", "qlora")
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit, {}


def set_learning_rate(made: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set the rate of every parameter group."""
    for optimizer in made:
        for group in optimizer.param_groups:
            group["lr"] = rate


def release(made: Iterable[Any]) -> None:
    """Let go of what optimizers hold, which can take no step after it. With a loss scaler accelerate makes them refer to
    themselves, so that moments and parameters would stay in a GPU's memory until garbage is collected."""
    for optimizer in made:
        optimizer.state.clear()
        optimizer.param_groups.clear()


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): the update is the nearest orthogonal matrix to the Nesterov momentum.

    Rescaled by 0.2 sqrt(max(rows, columns)) (Liu et al. 2025, arXiv 2502.16982, eq. 4) so that AdamW's learning rates
    carry over. torch.optim.Muon computes the same in bf16 everywhere, which is four times slower than fp32 on CPUs without
    bf16 instructions; here CPUs compute the iteration's products in the type `products`, that of training.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float,
                 products: torch.dtype = torch.float32) -> None:
        super().__init__(list(parameters), {"lr": 0.0, "weight_decay": weight_decay})
        self._products = products

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - MUON_MOMENTUM)
                products = self._products if parameter.device.type == "cpu" else torch.bfloat16
                update = orthogonalise(parameter.grad.lerp(momentum, MUON_MOMENTUM), products)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * 0.2 * max(parameter.shape) ** 0.5)


def orthogonalise(matrix: Tensor, products: torch.dtype = torch.float32) -> Tensor:
    """U V^T of the singular value decomposition, roughly: five Newton-Schulz steps (singular values 0.7 to 1.2), computed
    in the type `products`."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = (wide / wide.norm().clamp(min=1e-7)).to(products)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide is matrix else x.T).to(matrix.dtype)


def _block_matrices(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    inside = {id(parameter) for stack in blocks.stacks(model) for parameter in stack.parameters()}
    return {name: p for name, p in parameters.items() if p.ndim == 2 and id(p) in inside}
