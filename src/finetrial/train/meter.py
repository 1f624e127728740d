"""What a run of training reports while it runs and when it is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

OnMetrics = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class CurvePoint:
    """One validation during training: `step` steps done, `tokens` seen, `value` what `validate` returned."""

    step: int
    tokens: int
    value: float


@dataclass(frozen=True)
class TrainResult:
    """What one run of training came to. `seconds` counts training alone, without validation and checkpoints."""

    steps: int
    tokens: int
    target_tokens: int
    epochs: float
    final_loss: float
    curve: tuple[CurvePoint, ...]
    skipped_steps: int
    seconds: float
    optimizer_bytes: int


@dataclass
class Totals:
    """Running totals; all of them are part of a checkpoint."""

    tokens: int = 0
    target_tokens: int = 0
    skipped_steps: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    final_loss: float = float("nan")
    high_steps: int = 0  # steps in a row far above a uniform guess
    curve: list[CurvePoint] = field(default_factory=list)

    @contextlib.contextmanager
    def timed(self) -> Generator[None]:
        """What happens inside counts as training."""
        started = time.monotonic()
        yield
        self.seconds += time.monotonic() - started

    def state(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Totals:
        """From `state()`."""
        return cls(**{**state, "curve": [CurvePoint(**point) for point in state["curve"]]})


@dataclass(frozen=True)
class _Pending:
    step: int
    loss: Tensor
    grad_norm: Tensor | None
    learning_rate: float
    tokens: int


class Meter:
    """Collects each step's numbers as tensors and turns them into values a few steps at a time.

    Reading a value waits for an accelerator, so there they are read every `flush_steps` steps; on a CPU at once.
    """

    def __init__(self, on_metrics: OnMetrics | None, num_steps: int, flush_steps: int,
                 on_loss: Callable[[int, float], None]) -> None:
        self._on_metrics, self._num_steps = on_metrics, num_steps
        self._flush_steps, self._on_loss = flush_steps, on_loss
        self._pending: list[_Pending] = []
        self._started = time.monotonic()

    def add(self, step: int, loss: Tensor, grad_norm: Tensor | None, learning_rate: float, tokens: int) -> None:
        """Note step `step` (1-based) with its mean loss in nats per target token and the tokens seen so far."""
        self._pending.append(_Pending(step, loss.detach(), grad_norm, learning_rate, tokens))
        if len(self._pending) >= self._flush_steps:
            self.flush()

    def flush(self) -> None:
        """Read what is pending, report it, and let `on_loss` judge each loss."""
        pending, self._pending = self._pending, []
        for entry in pending:
            loss = float(entry.loss)
            if self._on_metrics is not None:
                self._on_metrics({
                    "step": entry.step, "num_steps": self._num_steps, "loss": loss,
                    "learning_rate": entry.learning_rate,
                    "grad_norm": None if entry.grad_norm is None else float(entry.grad_norm),
                    "tokens": entry.tokens, "seconds": round(time.monotonic() - self._started, 6)})
            self._on_loss(entry.step, loss)
