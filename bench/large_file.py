"""What a large data file costs: peak memory and time from the file to rows that are ready to train on.

    .venv/bin/python bench/large_file.py [--megabytes 1000]

Writes a .jsonl of about that size (documents of 1 kB, drawn words) into a temporary folder and looks at it as `finetrial
compare --learn` does, in a process of its own: reading and checking every row, drawing those that are used, clustering,
splitting. The peer, in the same run, is a loop that only parses the lines.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WORDS = 130  # of a document


def main() -> None:
    """Print seconds and MiB of both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1000)
    size = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.jsonl"
        rows = write(path, size)
        print(f"{path.stat().st_size / 1e6:,.0f} MB, {rows:,} rows")
        for name, work in (("json.loads of every line", parsed), ("as compare reads it", read)):
            seconds, mebibytes = measured(work, path)
            print(f"{name:28} {seconds:7.1f} s   peak memory {mebibytes:,.0f} MiB")


def write(path: Path, megabytes: int) -> int:
    """Random documents; returns how many."""
    generator = np.random.default_rng(0)
    vocabulary = np.array([f"word{number}" for number in range(20_000)])
    written = rows = 0
    with path.open("w", encoding="utf-8") as stream:
        while written < megabytes * 1_000_000:
            for words in vocabulary[generator.integers(0, len(vocabulary), (1_000, WORDS))]:
                written += stream.write(json.dumps({"text": " ".join(words)}) + "\n")
                rows += 1
    return rows


def parsed(path: Path) -> None:
    """Only parse."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            json.loads(line)


def read(path: Path) -> None:
    """The rows of a task, with splits."""
    from finetrial.compare.inspect import task_for

    task = task_for(path)
    assert task.source_digest()
    print(f"  {len(task.load().rows):,} rows kept")


def measured(work: Callable[[Path], None], path: Path) -> tuple[float, float]:
    """Seconds, and peak memory in MiB, of a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, path, sender))
    process.start()
    found: tuple[float, float] = receiver.recv()
    process.join()
    return found


def _run(work: Callable[[Path], None], path: Path, sender: object) -> None:
    began = time.perf_counter()
    work(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sender.send((time.perf_counter() - began, peak))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
