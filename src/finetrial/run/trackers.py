"""One run's results, written to one experiment tracker: `python -m finetrial.run.trackers FOLDER TRACKER`.

A process of its own (`run/tracking.py` starts it), which reads the run's folder and nothing else. Everything goes through
accelerate's trackers, one tracked run for each arm, sequence and seed at the learning rates that validation chose
(learning curves, test scores after each phase), and one for the study (test scores of all arms, findings, the report).
Steps of a later phase go on where those of the phase before ended.

What a tracker writes on this machine lies in `trackers/` of the run's folder, unless its own environment variables say
otherwise; W&B writes offline unless WANDB_MODE says otherwise.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from finetrial.records.results import Results, Score, Selection
from finetrial.run.run_file import ANALYSIS_FILE, REPORT_FILE, RESULTS_FILE

Values = dict[str, float]


@dataclass(frozen=True)
class Tracked:
    """What one tracked run holds. `tags` are short texts by name; rows of the `table` share their keys; `files` exist."""

    name: str
    tags: Mapping[str, str]
    config: Mapping[str, str | int | float]
    points: Sequence[tuple[int, Values]] = ()  # (step, values), in order of steps
    table: Sequence[Mapping[str, Any]] = ()
    files: Sequence[Path] = ()


def tracked_runs(results: Results, folder: Path) -> Iterator[Tracked]:
    """Everything that is tracked of a run: arms by seed, then the study as a whole."""
    places = dict.fromkeys((row.base, row.arm, row.sequence, row.seed) for row in results.tuning
                           if results.roles.get(row.arm) == "arm")
    for base, arm, sequence, seed in places:
        chosen = {row.phase: row for row in results.tuning
                  if (row.base, row.arm, row.sequence, row.seed) == (base, arm, sequence, seed)}
        scores = [row for row in results.scores
                  if (row.base, row.arm, row.sequence, row.seed) == (base, arm, sequence, seed)]
        rates = {f"learning_rate/{row.task}": row.chosen for row in chosen.values() if row.chosen is not None}
        tags = {"study": results.study, "base": base, "arm": arm, "sequence": sequence, "seed": str(seed)}
        yield Tracked(f"{base}/{arm}/{sequence}/seed-{seed}", tags,
                      {**tags, "label": results.arms.get(arm, arm), "seed": seed, **rates}, _points(scores, chosen))
    tags = {"study": results.study, "scale": results.scale, "size": results.size, "status": results.status}
    files = tuple(folder / name for name in (REPORT_FILE, ANALYSIS_FILE, RESULTS_FILE) if (folder / name).is_file())
    rows = _final_scores(results)
    yield Tracked("study", tags, {**tags, "question": results.question}, [(0, _final_values(results, rows))], rows, files)


def _points(scores: Sequence[Score], chosen: Mapping[int, Selection]) -> list[tuple[int, Values]]:
    """Curves and test scores of the phases, at the rate that was chosen for each."""
    found: dict[int, Values] = {}
    before = 0
    for phase, selection in sorted(chosen.items()):
        own = [row for row in scores if row.phase == phase and _known(row.value)
               and (row.selected or row.step is not None and row.point.learning_rate == selection.chosen)]
        last = max((row.step for row in own if row.step is not None), default=0)
        for row in own:
            if row.step is not None:
                found.setdefault(before + row.step, {})[_key(row.task, row.split, row.metric)] = float(row.value or 0.0)
            elif row.split == "test":
                key = _key("test", f"after-{selection.task}", row.task, row.metric,
                           *(["oracle"] if row.routing == "oracle" else []))
                found.setdefault(before + last, {})[key] = float(row.value or 0.0)
        before += last
    return sorted(found.items())


def _final_scores(results: Results) -> list[dict[str, Any]]:
    """Test scores with their intervals after the last phase of each sequence, and the untouched base's."""
    last = {row.sequence: row.phase for row in sorted(results.tuning, key=lambda row: row.phase)}
    columns = ("base", "arm", "sequence", "routing", "task", "metric", "value", "low", "high", "unit", "n_seeds")
    return [{name: getattr(row, name) for name in columns} for row in results.measures
            if row.measure == "score" and row.phase == last.get(row.sequence, 0) and _known(row.value)]


def _final_values(results: Results, rows: Sequence[Mapping[str, Any]]) -> Values:
    """The same as numbers by name, and the estimates of the findings."""
    found = {_key("score", row["base"], row["arm"], row["sequence"], row["task"], row["metric"],
                  *(["oracle"] if row["routing"] == "oracle" else [])): float(row["value"]) for row in rows}
    return found | {_key("finding", row.hypothesis, row.contrast): row.estimate for row in results.findings
                    if row.estimate is not None}


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _key(*parts: str) -> str:
    """Names that every tracker takes: letters, digits, `_`, `-`, `.`, space and `/`."""
    allowed = "".join(c if c.isalnum() or c in "_-. /" else "_" for c in "/".join(filter(None, parts)))
    return allowed[:240]


def log_runs(runs: Iterator[Tracked], opened: Callable[[Tracked], Any]) -> None:
    """Write each run to the tracker that `opened` makes for it: an accelerate `GeneralTracker`, not started yet."""
    for run in runs:
        tracker = opened(run)
        tracker.start()
        tracker.store_init_configuration(dict(run.config))
        for step, values in run.points:
            tracker.log(values, step=step)
        if run.table:
            _log_table(tracker, run.table)
        for path in run.files:
            _log_file(tracker, path)
        tracker.finish()


def _log_table(tracker: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """As a table; where a tracker has none, as Markdown."""
    columns = list(rows[0])
    if tracker.name == "wandb":
        tracker.log_table("scores", columns=columns, data=[list(row.values()) for row in rows])
    elif tracker.name == "mlflow":
        import_module("mlflow").log_table({name: [row[name] for row in rows] for name in columns}, "scores.json")
    elif tracker.name == "trackio":
        import pandas as pd

        tracker.log({"scores": import_module("trackio").Table(dataframe=pd.DataFrame(rows))}, step=0)
    else:
        lines = [columns, ["---"] * len(columns), *([str(value) for value in row.values()] for row in rows)]
        tracker.log({"scores": "\n".join(f"| {' | '.join(line)} |" for line in lines)}, step=0)


def _log_file(tracker: Any, path: Path) -> None:
    """The file as an artifact; where a tracker has none, the analysis as text."""
    if tracker.name == "mlflow":
        tracker.log_artifact(str(path))
    elif tracker.name == "wandb":
        tracker.tracker.log_artifact(str(path), name=path.name, type="report")
    elif tracker.name == "trackio":
        import_module("trackio").save(path, project=tracker.run_name)
    elif path.suffix == ".md":
        tracker.log({path.stem: path.read_text(encoding="utf-8")}, step=0)


def opener(name: str, study: str, folder: Path) -> Callable[[Tracked], Any]:
    """What makes the tracker of a run; `folder` is where it may write."""
    from accelerate import PartialState, tracking

    PartialState(cpu=True)  # accelerate's logger asks for it
    if name == "tensorboard":
        shutil.rmtree(folder / name, ignore_errors=True)  # ours alone: what was logged before is replaced
        return lambda run: tracking.TensorBoardTracker(run.name, folder / name)
    if name == "mlflow":
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        artifacts = (folder / name).as_uri()
        return lambda run: tracking.MLflowTracker(study, artifacts, tags=dict(run.tags), run_name=run.name)
    if name == "wandb":
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_DIR", str(folder))
        return lambda run: tracking.WandBTracker(study, name=run.name, group=study,
                                                 tags=[f"{tag}:{text}"[:64] for tag, text in run.tags.items() if text])
    os.environ.setdefault("TRACKIO_DIR", str(folder / name))
    return lambda run: tracking.TrackioTracker(study, name=run.name, group=study)


def main(arguments: Sequence[str]) -> None:
    """Log the run in a folder to one tracker; whatever goes wrong ends the process with its traceback."""
    run, name = Path(arguments[0]).resolve(), arguments[1]
    results = Results.model_validate_json((run / RESULTS_FILE).read_bytes())
    (run / "trackers").mkdir(exist_ok=True)
    log_runs(tracked_runs(results, run), opener(name, results.study, run / "trackers"))


if __name__ == "__main__":
    main(sys.argv[1:])
