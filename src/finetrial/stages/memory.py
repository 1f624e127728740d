"""Peak memory of this process, over what it held before the work began.

Host memory is VmHWM of /proc/self/status (Linux), reset through clear_refs where permitted; elsewhere it is unknown.
`ru_maxrss` is not used: a forked child inherits its parent's. An accelerator is started before the baseline is read.
Device memory is what torch's allocator says.
"""

from __future__ import annotations

import re
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


class MemoryMeter:
    """Reads the baseline when made; `peaks()` gives what was needed since."""

    def __init__(self, device: str) -> None:
        self._device = device
        if device != "cpu":
            _first_product(device)
        self._resettable = _reset_peak()
        self._baseline = _read("VmRSS")
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(device)

    def begin_again(self) -> None:
        """Forget the host's peak so far, not the baseline: after a base has been quantised, whose mapped file the system
        could have taken back at any time."""
        self._resettable = _reset_peak()

    def peaks(self) -> dict[str, int | None]:
        """Bytes: peak host memory over the baseline; peak device memory allocated and reserved. None = unknown."""
        peak = _read("VmHWM")
        known = peak is not None and self._baseline is not None and self._resettable
        found: dict[str, int | None] = {"peak_host_bytes": peak - self._baseline if known else None,  # type: ignore[operator]
                                        "baseline_host_bytes": self._baseline,
                                        "peak_device_allocated_bytes": None, "peak_device_reserved_bytes": None}
        if self._device.startswith("cuda"):
            import torch

            found["peak_device_allocated_bytes"] = torch.cuda.max_memory_allocated(self._device)
            found["peak_device_reserved_bytes"] = torch.cuda.max_memory_reserved(self._device)
        return found


def _first_product(device: str) -> None:
    """Have the device's context and the library of its products be there, which take hundreds of MB of the host's memory
    and are no need of the work."""
    import torch

    small = torch.ones(8, 8, device=device)
    float((small @ small).sum())


def _reset_peak() -> bool:
    """Set VmHWM to the present size (proc(5), clear_refs 5). False where that is not possible."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _read(field: str) -> int | None:
    try:
        match = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match.group(1)) * 1024 if match else None
