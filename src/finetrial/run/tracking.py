"""Experiment trackers: off unless asked for, execution and no identity, and never a reason for a run to fail.

Stages run in processes of their own and are reused from the store, so nothing is logged from inside training: what is
recorded is logged when a run has ended, or by `finetrial report RUN --track NAME` at any time, of what there is by then.
Each tracker is written by a child process (`run/trackers.py`): its packages stay out of this one, its failure, however
it fails, is one warning, and what hangs is ended.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from finetrial.errors import UserError, unknown
from finetrial.run.disk import replace_text
from finetrial.run.machine import child_environment
from finetrial.run.run_file import RESULTS_FILE

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")  # each is its package's name
TIMEOUT_SECONDS = 600.0
LOGGED = "logged.json"  # in trackers/ of a run: tracker -> digest of the results that it has


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once. Raises UserError for one that is unknown, or whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UserError("--track: " + unknown("tracker", name, TRACKERS), "several are separated by commas")
        missing = [package for package in (name, "accelerate") if find_spec(package) is None]
        if missing:
            raise UserError(f"--track {name}: {' and '.join(missing)} is not installed",
                            f"install it: pip install {' '.join(missing)}")
    return tuple(dict.fromkeys(names))


def track(folder: Path, names: Sequence[str], warn: Callable[[str], None], *,
          timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Log the results in a run's folder to each tracker that does not have them yet. What goes wrong is a warning."""
    digest = hashlib.sha256((folder / RESULTS_FILE).read_bytes()).hexdigest()
    place = folder / "trackers" / LOGGED
    for name in names:
        logged = _logged(place)
        if logged.get(name) == digest:
            continue
        try:
            _log_by_child(folder, name, timeout_seconds)
            replace_text(place, json.dumps({**logged, name: digest}, indent=1) + "\n")
        except (UserError, OSError) as error:
            problem = error.problem if isinstance(error, UserError) else str(error)
            warn(f"{name} did not take the results: {problem}; the run is not affected, and finetrial report "
                 f"{folder} --track {name} tries again")


def _logged(place: Path) -> dict[str, str]:
    """What is logged already; nothing where that cannot be read: then it is logged again."""
    try:
        return dict(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _log_by_child(folder: Path, name: str, timeout_seconds: float) -> None:
    """Raises UserError with the reason in one line."""
    asked = [sys.executable, "-m", "finetrial.run.trackers", str(folder), name]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=timeout_seconds, check=False,
                              env=child_environment())
    except subprocess.TimeoutExpired:
        raise UserError(f"it had not ended after {timeout_seconds:g} seconds") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(lines[-1].strip() if lines else f"it ended with exit code {done.returncode}")
