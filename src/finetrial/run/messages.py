"""Messages from workers and their server to the runner: one JSON object a line, through one pipe.

A line is at most PIPE_BUF bytes, so the kernel writes it whole or not at all, whoever else writes and whoever is
killed. Every message has `type` and, if a worker sent it, `job` and `stage`:

    started   (micro_batch: rows of the first try or None)     progress  (fraction, loss)
    finished  a record was written                             recorded  another process had written it
    busy      another process computes it                      oom       try again with `micro_batch` rows
    disk      (problem, mend): the store cannot be written
    exit      (from the server) the worker ended with `status`, a negative signal number or an exit code
    broken    (from the server) workers cannot be started: `message`
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Mapping
from typing import Any

LONGEST_TEXT = 1000  # characters of a text field; a message has at most two

Message = Mapping[str, Any]


def send(descriptor: int, message: Message) -> None:
    """Write one message whole. Raises BrokenPipeError if nobody reads any more."""
    short = {name: value[:LONGEST_TEXT] if isinstance(value, str) else value for name, value in message.items()}
    line = json.dumps(short).encode("ascii", "replace") + b"\n"
    assert len(line) <= select.PIPE_BUF, f"a message of {len(line)} bytes: {short}"
    os.write(descriptor, line)


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
