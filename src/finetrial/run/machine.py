"""What this machine has, read without torch: processor, accelerators, memory, disk."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from finetrial.catalog import installed_version
from finetrial.errors import UserError

CPU_INFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/gpus")
PART = "MIG-"  # how the name of a part of a GPU begins
CPU_BUILD = "+cpu"
DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", str(NVIDIA.parent))
_PINNED = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
           "PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
_NO_THREAD_CACHE = "glibc.malloc.tcache_count=0"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = (1 << 31) - 1


@functools.cache
def cpu_model() -> str | None:
    """The name of the processor; None where the system does not say it."""
    if CPU_INFO.is_file():
        with CPU_INFO.open(encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    if sys.platform == "darwin":
        return output_of("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor() or None


def output_of(*command: str) -> str | None:
    """What a command prints; None if it is absent or fails."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def accelerators() -> list[str]:
    """The names of the GPUs that the operating system knows, whatever torch can do with them."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ["Apple GPU"]
    return [_model(path) for path in sorted(NVIDIA.glob("*/information"))]


def may_have_accelerator() -> bool:
    """False where a look at the system rules one out; saves importing torch."""
    return sys.platform != "linux" or any(Path(driver).exists() for driver in DRIVERS)


def usual_device() -> str | None:
    """The kind of device that `auto` takes, as far as system and packages tell without torch; None = only torch can say."""
    if not may_have_accelerator() or torch_version().endswith(CPU_BUILD):
        return "cpu"
    if sys.platform == "darwin":
        return "mps" if accelerators() else "cpu"
    return None if not accelerators() else "cpu" if _are_hidden() else "cuda"


def _are_hidden() -> bool:
    """Whether CUDA is told to show no device: by an empty list, or one that begins with a number that none has."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is not None and (visible in ("", "NoDevFiles") or visible.startswith("-"))


def child_environment() -> dict[str, str]:
    """The environment in which another interpreter imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def worker_environment() -> dict[str, str]:
    """The environment of a process that computes stages; a stage sets torch's own number of threads.

    Without a cache of freed pieces for each thread glibc joins the slivers at the edges of an aligned block with it again,
    so that a tensor of its size fits there the next time: a training step on a CPU needs a tenth less memory, and no more time.
    """
    tunables = filter(None, (_NO_THREAD_CACHE, os.environ.get("GLIBC_TUNABLES")))  # the last word is the user's
    return {**child_environment(), **_PINNED, "GLIBC_TUNABLES": ":".join(tunables)}


def unused_accelerator(device: str) -> str:
    """Why an accelerator that is here would not be used; empty if there is none or it would be."""
    present = ", ".join(accelerators())
    if not present:
        return ""
    if device == "cpu":
        return f"{present} is here and is not used, because of --device cpu"
    if device == "auto" and torch_version().endswith(CPU_BUILD):
        return (f"{present} is here and is not used: torch {torch_version()} is a CPU build; "
                "install another one: make clean install TORCH_INDEX=https://download.pytorch.org/whl/cu130")
    return ""


def keep_freed_memory() -> None:
    """Have the allocator keep what large tensors free, instead of giving pages back and faulting them in at each step.

    glibc only; elsewhere nothing happens. A training step of a small model on a CPU takes 3 to 15 % less.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def torch_version() -> str:
    """The version of torch that is installed, from its metadata; empty if there is none."""
    return installed_version("torch")


def compute_with(threads: int) -> None:
    """Before any operation: the number of threads decides the last bits of results. Numbers below 1e-38 are taken as zero:
    a CPU is slow with them, and a model that has learned has many (a T5's step takes half the time, a GPT-2's a twentieth less)."""
    import torch

    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch with one thread, as every phase has on a CPU; restored afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def memory_bytes() -> tuple[int, int]:
    """Main memory: what is available to a new process, and all there is."""
    import psutil

    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def accelerator_bytes(what: str = "total") -> list[int]:
    """The memory of each NVIDIA GPU that may be used, all of it or what is `free`, as its driver states it; empty without one.

    Raises UserError where a GPU is here and the driver does not answer.
    """
    if not NVIDIA.is_dir() or _are_hidden():
        return []
    asked = ["nvidia-smi", f"--query-gpu=memory.{what}", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible and not visible.startswith(PART):  # of parts the driver knows no memory by name
        asked.append(f"--id={visible}")
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
        return [int(line) << 20 for line in answer.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UserError(f"the memory of {', '.join(accelerators())} is not known: {error}",
                        "name it: --device 16GB") from error


def free_accelerator_bytes(device: str) -> int | None:
    """What the GPU with least has free; None where that is not known, and for any other device."""
    if device.partition(":")[0] != "cuda" or os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith(PART):
        return None
    try:
        return min(accelerator_bytes("free"), default=None)
    except UserError:
        return None


def free_bytes(path: Path) -> int:
    """Free disk space where `path` lies or would lie."""
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _model(information: Path) -> str:
    match = re.search(r"^Model:\s*(.+)$", information.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match.group(1).strip() if match else "an NVIDIA GPU"
