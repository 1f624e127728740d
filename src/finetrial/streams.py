"""Named random streams: the same seed and purpose give the same draws on every machine, and touch nothing global.

`stream(seed, purpose)` is a NumPy generator seeded from SHA-256 of both. Purposes in use: `order` (data order),
`dropout`, `adapter/<slot>` (initialisation), `subset` (draw of training subsets), `sampling` (generation). An A/A
replicate puts `aa/` before every purpose. Library draws that only know torch's global generator run inside `torch_fork`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SEED_BITS = 63  # torch.manual_seed takes a signed 64-bit integer


@dataclass(frozen=True)
class Streams:
    """All streams of one cell: `seed` is the replicate's seed, `replicate` a prefix such as `aa/`."""

    seed: int
    replicate: str = ""

    def generator(self, purpose: str) -> np.random.Generator:
        """A fresh NumPy generator for `purpose`; two calls give two equal generators."""
        return stream(self.seed, self.replicate + purpose)

    def torch_seed(self, purpose: str) -> int:
        """An integer seed for torch, drawn from the same identity."""
        return stream_seed(self.seed, self.replicate + purpose)

    @contextlib.contextmanager
    def torch_fork(self, purpose: str) -> Iterator[None]:
        """Run library draws under a global torch generator seeded for `purpose`, and restore it afterwards."""
        import torch

        initialised = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        devices = list(range(torch.cuda.device_count())) if initialised else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.torch_seed(purpose))
            yield


def stream_seed(seed: int, purpose: str) -> int:
    """A 63-bit integer from SHA-256 of the seed and the purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> (64 - SEED_BITS)


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The generator (PCG64) of `purpose` under `seed`."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, purpose)))
