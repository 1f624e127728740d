"""The ways a run of training ends early that are outcomes, not errors of the program. No torch here."""

from __future__ import annotations


class Diverged(Exception):
    """Training left the region where numbers mean anything: the loss is not finite, or far above a uniform guess."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"training diverged at step {step} (loss {loss})")
        self.step = step
        self.loss = loss


class OutOfTime(Exception):
    """Training reached its deadline; the last checkpoint is at `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"training reached its deadline at step {step}")
        self.step = step
