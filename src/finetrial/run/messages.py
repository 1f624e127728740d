"""Messages from workers and their server to the runner: one JSON object a line, through one pipe.

A line is at most PIPE_BUF bytes, so the kernel writes it whole or not at all, whoever else writes and whoever is
killed. Every message has `type` and, if a worker sent it, `job` and `stage`:

    started   (micro_batch: rows of the first try or None)     progress  (fraction, loss)
    finished  a record was written                             recorded  another process had written it
    busy      another process computes it                      oom       try again with `micro_batch` rows
    alone     (reason, cells, memory): a pass of `cells` cells failed, for lack of memory or not; each is computed for itself
    log       (name, text; no stage) from another machine: the news of a log file
    disk      (problem, mend): the store cannot be written
    exit      (from the server) the worker ended with `status`, a negative signal number or an exit code. The executor
              adds `oom_killed`: true if the kernel has killed for lack of memory meanwhile, null where it does not tell;
              and on a cluster `lost`: what became of the machine, where that is why
    broken    (from the server) workers cannot be started: `message`; from another machine `problem` and `mend`
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]


def send(descriptor: int, message: Message) -> None:
    """Write one message whole, its texts cut until it fits. Raises BrokenPipeError if nobody reads any more."""
    longest = select.PIPE_BUF
    while len(line := _line(message, longest)) > select.PIPE_BUF:
        assert longest > 0, f"a message that cannot be shortened: {message}"
        longest //= 2
    os.write(descriptor, line)


def _line(message: Message, longest: int) -> bytes:
    texts = {name: value[:longest] for name, value in message.items() if isinstance(value, str) and name != "stage"}
    return json.dumps({**message, **texts}).encode("ascii") + b"\n"


class Reader:
    """Splits what comes through the pipe into messages. `ended` is true once nobody can write any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self.ended = False

    def read(self, timeout: float | None) -> list[Message]:
        """The messages that are there; waits up to `timeout` seconds for the first."""
        ready, _, _ = select.select([self._descriptor], [], [], timeout)
        if not ready:
            return []
        data = os.read(self._descriptor, 1 << 16)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]
