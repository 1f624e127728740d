"""Where results come from: the environment class of a device, and facts about this machine, captured once for a run."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetrial.cache import cache_root
from finetrial.catalog import installed_version
from finetrial.errors import StoreError
from finetrial.fingerprint import key_of
from finetrial.records.record import Environment
from finetrial.run.disk import replace_text
from finetrial.run.machine import CPU_INFO, cpu_model, memory_bytes, output_of

PACKAGES = ("finetrial", "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "scipy",
            "pyarrow", "pydantic", "bitsandbytes")
CPU_CAPABILITY = "cpu-capability.json"  # in finetrial's cache


def environment(device: str, *, cache: Path | None = None) -> Environment:
    """The environment class of `device` ("cpu", "cuda", "cuda:1", "mps").

    What torch says of the CPU's instruction set is kept in `cache` (default: `cpu-capability.json` in finetrial's
    cache), so that a run on CPUs in which everything is recorded need not import torch.
    """
    kind = device.partition(":")[0]
    return Environment(device=kind, device_name=_device_name(device), torch=version("torch"),
                       transformers=version("transformers"), peft=version("peft"),
                       cpu_capability=_cpu_capability(cache or cache_root() / CPU_CAPABILITY))


def known_cpu_capability(cache: Path | None = None) -> str | None:
    """What torch said of this CPU's instruction set in equal circumstances, without importing it; None = it was not asked."""
    try:
        known = json.loads((cache or cache_root() / CPU_CAPABILITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = known.get(_circumstances()) if isinstance(known, dict) else None
    return found if isinstance(found, str) else None


def host_facts(command: str, folder: Path | None = None) -> dict[str, Any]:
    """Python, platform, processor, memory, versions, and the git commit of `folder` (default: the current one)."""
    return {
        "command": command,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": memory_bytes()[1],
        "packages": {name: found for name in PACKAGES if (found := installed_version(name))},
        "git_commit": _git_commit(folder or Path.cwd()),
    }


def _device_name(device: str) -> str | None:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_model() if device == "mps" else None  # Apple's accelerator is part of the processor


def _cpu_capability(cache: Path) -> str:
    """`torch.backends.cpu.get_cpu_capability()`, or what it said before in equal circumstances."""
    known = known_cpu_capability(cache)
    if known is not None:
        return known
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    with contextlib.suppress(OSError, StoreError):  # without a cache the next run is slower, and right
        cache.parent.mkdir(parents=True, exist_ok=True)
        replace_text(cache, json.dumps({_circumstances(): capability}) + "\n")
    return capability


def _circumstances() -> str:
    return key_of({"torch": version("torch"), "machine": platform.machine(), "flags": _cpu_flags(),
                   "setting": os.environ.get("ATEN_CPU_CAPABILITY")})


def _cpu_flags() -> str:
    """The instruction sets of the first processor; elsewhere than on Linux its name."""
    if not CPU_INFO.is_file():
        return platform.processor()
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("flags", "Features"))), "")


def _git_commit(folder: Path) -> str | None:
    """The commit that is checked out, with `+changes` where files differ from it; None outside of git."""
    commit = output_of("git", "-C", str(folder), "rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}+changes" if output_of("git", "-C", str(folder), "status", "--porcelain") else commit
