"""Trackers: what they are given, and that nothing they do fails a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sequences

from finetrial.analysis.analyse import analyse
from finetrial.errors import UserError
from finetrial.records.results import Results
from finetrial.run import tracking
from finetrial.run.trackers import Tracked, log_runs, tracked_runs


@pytest.fixture(scope="module")
def results() -> Results:
    study, table = sequences.make_table(num_seeds=2, num_test=10)
    return analyse(study, table)


@pytest.fixture
def folder(results: Results, tmp_path: Path) -> Path:
    """A run's folder, as far as a tracker reads it."""
    (tmp_path / "results.json").write_text(results.model_dump_json(), encoding="utf-8")
    (tmp_path / "analysis.md").write_text("# What was found\n", encoding="utf-8")
    (tmp_path / "report.html").write_text("<p>What was found</p>", encoding="utf-8")
    return tmp_path


class FakeTracker:
    """What accelerate's trackers offer, kept in a list."""

    name = "tensorboard"

    def __init__(self, run: Tracked, calls: list[Any]) -> None:
        self.run, self.calls = run, calls

    def start(self) -> None:
        self.calls.append(("start", self.run.name))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(("config", values))

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.calls.append(("log", step, values))

    def finish(self) -> None:
        self.calls.append(("finish", self.run.name))


def test_a_run_for_each_arm_and_seed_and_one_for_the_study(results: Results, folder: Path) -> None:
    runs = {run.name: run for run in tracked_runs(results, folder)}
    assert len(runs) == 4 * (2 + 2) * 2 + 1  # arms x (orders and single-task controls) x seeds, and the study
    one = runs["tiny/lora/docs-code/seed-1"]
    assert one.tags == {"study": "sequences", "base": "tiny", "arm": "lora", "sequence": "docs-code", "seed": "1"}
    assert one.config["learning_rate/docs"] in sequences.RATES["lora"] and one.config["label"] == "LoRA r=8"


def test_curves_of_a_later_phase_go_on_where_the_first_ended(results: Results, folder: Path) -> None:
    one = next(run for run in tracked_runs(results, folder) if run.name == "tiny/lora/docs-code/seed-0")
    steps = {key: [step for step, values in one.points if key in values] for _, all_ in one.points for key in all_}
    assert steps["docs/val/nats-per-token"] == [20, 40, 60, 80]
    assert steps["code/val/nats-per-token"] == [100, 120, 140, 160]
    assert steps["test/after-docs/docs/nats-per-token"] == [80]
    assert steps["test/after-code/docs/nats-per-token"] == steps["test/after-code/docs/nats-per-token/oracle"] == [160]
    assert [step for step, _ in one.points] == sorted(step for step, _ in one.points)


def test_the_study_has_scores_findings_and_the_report(results: Results, folder: Path) -> None:
    whole = list(tracked_runs(results, folder))[-1]
    (_, values), = whole.points
    measure = next(row for row in results.measures if (row.measure, row.arm, row.sequence, row.phase, row.task, row.metric,
                   row.routing) == ("score", "lora", "docs-code", 2, "code", "chrf", "latest"))
    assert values["score/tiny/lora/docs-code/code/chrf"] == measure.value
    assert any(key.startswith("finding/H1/") for key in values)
    row, = [row for row in whole.table if (row["arm"], row["sequence"], row["task"], row["metric"], row["routing"])
            == ("lora", "docs-code", "code", "chrf", "latest")]
    assert (row["value"], row["low"], row["high"]) == (measure.value, measure.low, measure.high)
    assert {row["arm"] for row in whole.table} >= {"base", "full", "lora", "layer", "both"}
    assert [path.name for path in whole.files] == ["report.html", "analysis.md", "results.json"]


def test_what_a_tracker_is_told(results: Results, folder: Path) -> None:
    calls: list[Any] = []
    runs = [run for run in tracked_runs(results, folder) if run.name in ("tiny/full/docs-code/seed-0", "study")]
    log_runs(iter(runs), lambda run: FakeTracker(run, calls))
    kinds = [call[0] for call in calls]
    assert kinds.count("start") == kinds.count("config") == kinds.count("finish") == 2
    assert kinds[0] == "start" and kinds[-1] == "finish"
    assert ("log", 0, {"analysis": "# What was found\n"}) in calls  # a tracker without artifacts gets the text
    table, = [call[2]["scores"] for call in calls if call[0] == "log" and "scores" in call[2]]
    assert table.startswith("| base | arm | sequence |") and "| tiny | lora | docs-code |" in table


def test_a_tracker_that_fails_is_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    (folder / "results.json").write_text("{}", encoding="utf-8")  # the child cannot read it
    tracking.track(folder, ["tensorboard"], said.append)
    assert len(said) == 1 and said[0].startswith("tensorboard did not take the results: ")
    assert "the run is not affected" in said[0] and f"finetrial report {folder} --track tensorboard" in said[0]


def test_a_tracker_that_hangs_is_ended(folder: Path) -> None:
    said: list[str] = []
    tracking.track(folder, ["tensorboard"], said.append, timeout_seconds=0.01)
    assert said and "it had not ended after 0.01 seconds" in said[0]


def test_results_are_logged_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(tracking, "_log_by_child", lambda folder, name, seconds: asked.append(name))
    (folder / "trackers").mkdir()
    for _ in range(2):
        tracking.track(folder, ["mlflow", "wandb"], pytest.fail)
    assert asked == ["mlflow", "wandb"]
    (folder / "results.json").write_text("other results", encoding="utf-8")
    (folder / "trackers" / tracking.LOGGED).write_text("damaged", encoding="utf-8")
    tracking.track(folder, ["mlflow"], pytest.fail)
    assert asked == ["mlflow", "wandb", "mlflow"]


def test_names_are_checked_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        tracking.check_trackers(["tensorbord"])
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "wandb" else name)
    with pytest.raises(UserError, match="wandb is not installed\n  install it: pip install wandb"):
        tracking.check_trackers(["tensorboard", "wandb"])
    assert tracking.check_trackers(["mlflow", "tensorboard", "mlflow"]) == ("mlflow", "tensorboard")


def test_tensorboard_reads_what_was_written(folder: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said: list[str] = []
    tracking.track(folder, ["tensorboard"], said.append)
    assert said == []
    events = EventAccumulator(str(folder / "trackers" / "tensorboard" / "tiny" / "lora" / "docs-code" / "seed-0"))
    events.Reload()
    assert [point.step for point in events.Scalars("code/val/nats-per-token")] == [100, 120, 140, 160]
    whole = EventAccumulator(str(folder / "trackers" / "tensorboard" / "study"))
    whole.Reload()
    assert "analysis/text_summary" in whole.Tags()["tensors"]


@pytest.mark.parametrize("name", ["mlflow", "wandb", "trackio"])
def test_the_other_trackers_take_it(name: str, folder: Path) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    said: list[str] = []
    tracking.track(folder, [name], said.append)
    assert said == [] and len(list((folder / "trackers").iterdir())) > 1  # logged.json, and its own
