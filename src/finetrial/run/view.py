"""The view of a run: one live screen on a terminal, otherwise one plain line for each finished stage.

Both are made from the board, which is made from events; nothing here knows what a stage does.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finetrial.records.record import Outcome
from finetrial.run.board import Board, RunningStage
from finetrial.run.events import Event, Listener, RunEnded, RunStarted, StackStarted, StageFinished

BAR_CELLS = 24


def open_view(stream: TextIO | None = None) -> Listener:
    """A listener that shows the run on `stream` (default: standard error): live on a terminal, else plain lines."""
    stream = stream or sys.stderr
    return LiveView(Console(file=stream)) if stream.isatty() else PlainView(lambda line: print(line, file=stream,
                                                                                             flush=True))


class PlainView:
    """One line for each finished stage; one at the end where the run was interrupted."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._board = write, Board()

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        self._board.see(event)
        if isinstance(event, StackStarted):
            first = self._board.stages[event.stage_ids[0]]
            self._write(f"stack of {len(event.stage_ids)} in one pass: {first.label or first.id}, ...")
        elif isinstance(event, StageFinished):
            self._write(f"[{self._board.done}/{self._board.total}] {finished_line(self._board, event)}")
        elif isinstance(event, RunEnded) and event.message:
            self._write(event.message)


class LiveView:
    """A screen that follows the run and leaves its last state behind."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._board, self._clock, self._offset = Board(), clock, 0.0
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __call__(self, event: Event) -> None:
        """Take in an event; the first starts the screen, the last ends it."""
        self._board.see(event)
        self._offset = self._clock() - event.at
        if isinstance(event, RunStarted):
            self._live.start()
        elif isinstance(event, RunEnded):
            self._live.stop()

    def _render(self) -> RenderableType:
        return render(self._board, self._clock() - self._offset)


def render(board: Board, at: float) -> RenderableType:
    """The screen `at` seconds after the run began."""
    parts: list[RenderableType] = [Text(header(board, at), style="bold")]
    if board.running:
        lines = Table.grid(padding=(0, 2))
        for line in board.running.values():
            lines.add_row(*_running_row(line, at))
        parts.append(lines)
    parts += [Text("  " + finished_line(board, event), style="dim" if event.outcome is Outcome.OK else "yellow")
              for event in board.recent]
    parts += [Text(f"  damaged, computed again: {description}", style="yellow") for description in board.damaged]
    if board.ended and board.ended.message:
        parts.append(Text(board.ended.message))
    return Group(*parts)


def header(board: Board, at: float) -> str:
    """Stages done, reused and failed, time elapsed and left."""
    end = board.ended.at if board.ended else at
    parts = [f"{board.done}/{board.total} stages", f"{board.reused} reused",
             *(f"{count} {outcome}" for outcome, count in sorted(board.failures().items())), duration(end)]
    left = None if board.ended else board.time_left(at)
    if left is not None:
        parts.append(f"{'at least ' if left.at_least else ''}{duration(left.seconds)} left")
    elif not board.ended:
        parts.append("time left unknown")
    return " · ".join(parts)


def finished_line(board: Board, event: StageFinished) -> str:
    """A finished stage for people: what it was, how long it took, and why it failed."""
    stage = board.stages[event.stage_id]
    text = f"{stage.kind}  {stage.label or stage.id}  {duration(event.seconds)}"
    return text if event.outcome is Outcome.OK else f"{text}  {event.outcome}: {event.message}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _running_row(line: RunningStage, at: float) -> tuple[RenderableType, ...]:
    bar = ProgressBar(total=1.0, completed=line.fraction or 0.0, width=BAR_CELLS)
    loss = "" if line.loss is None else f"loss {line.loss:.3f}" if math.isfinite(line.loss) else f"loss {line.loss}"
    stacked = f" (stack of {line.stack})" if line.stack > 1 else ""
    return ("  " + escape(line.stage.kind), escape(line.stage.label or line.stage.id) + stacked, bar,
            "" if line.fraction is None else f"{line.fraction:.0%}", duration(at - line.started), loss)
