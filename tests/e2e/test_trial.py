"""Whole trials on a tiny model: complete, repeated, killed and resumed, rebuilt."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_study import tiny_content

from finetrial.cli import main
from finetrial.errors import UserError
from finetrial.plan.build import build
from finetrial.records.results import Results
from finetrial.run.additions import additions
from finetrial.run.options import RunOptions
from finetrial.run.rebuild import rebuild
from finetrial.run.status import read_status
from finetrial.run.trial import Trial, run_study
from finetrial.spec.io import parse_study, read_study

RECORDS = "*/??/*/record.json"  # of finished stages, below a store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("study")
    (made / "study.yaml").write_text(yaml.safe_dump(tiny_content(made)))
    return made


def run(folder: Path, runs: str, **options: Any) -> Trial:
    return run_study(read_study(folder / "study.yaml"), RunOptions(runs=folder / runs, view=False, figures=False, **options),
                     relative_to=folder, command="finetrial run study.yaml")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Trial:
    return run(folder, "undisturbed")


def test_a_run_that_the_audit_refuses_after_its_data_is_not_called_complete(folder: Path,
                                                                            capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(folder / "study.yaml").model_copy(update={"accept_threats": ()})
    with pytest.raises(UserError, match="held-out-rows-in-training"):
        run_study(study, RunOptions(runs=folder / "refused", view=False), relative_to=folder)
    status = read_status(folder / "refused" / "tiny-custom-small")
    assert status is not None and status["state"] == "refused"
    assert status["stages_done"] < status["stages_total"]
    assert main(["status", "tiny-custom-small", "--runs", str(folder / "refused")]) == 0
    assert "refused, " in (printed := capsys.readouterr().out) and "by the audit of its data" in printed


def scores(trial: Trial) -> list[dict[str, Any]]:
    return [score.model_dump(mode="json") for score in trial.results.scores]


def test_a_trial_leaves_everything_it_promises(undisturbed: Trial) -> None:
    names = {path.name for path in undisturbed.folder.iterdir()}
    assert {"study.yaml", "plan.json", "results.json", "records.parquet", "analysis.md", "report.html", "logs",
            "artifacts", "status.json"} <= names
    written = Results.model_validate_json((undisturbed.folder / "results.json").read_text())
    assert written == undisturbed.results and written.status == "complete"
    assert {finding.hypothesis for finding in written.findings} == {"H1"}
    assert {cost.arm for cost in written.costs} == {"full", "lora-r2"}
    assert all(cost.peak_host_bytes is None or cost.peak_host_bytes > 0 for cost in written.costs)
    assert all(cost.predict_seconds and cost.predict_tokens and cost.repeats["tokens_per_second"] == (cost.tokens_per_second,)
               for cost in written.costs)


def test_the_second_time_nothing_is_computed(folder: Path, undisturbed: Trial) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "undisturbed" / ".store").rglob("record.json")}
    again = run(folder, "undisturbed")
    assert scores(again) == scores(undisturbed)
    after = {path: path.stat().st_mtime_ns for path in (folder / "undisturbed" / ".store").rglob("record.json")}
    assert after == before


@pytest.mark.slow
def test_cells_trained_in_one_pass_have_the_scores_of_cells_alone(folder: Path, undisturbed: Trial) -> None:
    stacked = run(folder, "stacked", stack=4)
    records = [json.loads(path.read_text()) for path in (folder / "stacked" / ".store" / "train").rglob("record.json")]
    assert {record["execution"].get("stacked_cells") for record in records} == {None, 4}  # full fine-tuning, and LoRA
    assert {record["key"] for record in records} == {path.parent.name.rpartition("-")[0] for path in
                                                     (folder / "undisturbed" / ".store" / "train").rglob("record.json")}
    for found, expected in zip(scores(stacked), scores(undisturbed), strict=True):
        assert found.pop("value") == pytest.approx(expected.pop("value"), rel=1e-3) and found == expected


@pytest.mark.slow
def test_losses_at_the_chosen_rate_are_those_of_the_whole_grid(folder: Path, undisturbed: Trial) -> None:
    """Every test score that is read exists, bit for bit, and the answers are the same."""
    records = sorted((folder / "undisturbed" / ".store" / "predict").rglob("record.json"))
    content = {**tiny_content(folder), "name": "chosen", "evaluation": {"rates": "chosen"}}
    trial = run_study(parse_study(content, "study.yaml"), RunOptions(runs=folder / "undisturbed", view=False, figures=False),
                      relative_to=folder, command="finetrial run study.yaml")
    assert sorted((folder / "undisturbed" / ".store" / "predict").rglob("record.json")) == records
    assert trial.results.status == "complete" and trial.results.findings == undisturbed.results.findings
    everywhere = scores(undisturbed)
    fewer = scores(trial)
    assert all(score in everywhere for score in fewer) and len(fewer) < len(everywhere)
    wanted = [score for score in everywhere if score["selected"]
              and (score["split"] == "test" or score["task"] == "new" or score["arm"] != "lora-r2")]
    assert all(score in fewer for score in wanted)


def within(folder: Path, seconds: float, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Trial:
    content = {**tiny_content(folder), "name": "within", "seeds": 5}
    monkeypatch.setattr("finetrial.run.trial._say", said.append)
    monkeypatch.setattr("finetrial.run.trial.open_view", lambda: None)
    options = RunOptions(runs=folder / "undisturbed", figures=False, within_seconds=seconds)
    return run_study(parse_study(content, "study.yaml"), options, relative_to=folder, command="finetrial run study.yaml")


@pytest.mark.slow
def test_within_a_time_the_seeds_that_fit_are_run(folder: Path, undisturbed: Trial,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with pytest.raises(UserError, match="3 seeds, the fewest that give an interval, take at least"):
        within(folder, 1e-3, said, monkeypatch)
    monkeypatch.setattr("finetrial.run.within.seeds_within",
                        lambda left, each, done, most: 4 if 0 < each < left < 600 and (done, most) == (3, 5) else 0)
    trial = within(folder, 600.0, said, monkeypatch)
    assert trial.study.seeds == (0, 1, 2, 3) and trial.results.status == "complete"
    assert said[-1].startswith("3 seeds are done after") and said[-1].endswith("; 4 of 5 fit into 10.0 minutes")
    monkeypatch.setattr("finetrial.run.within.seeds_within", lambda *_, **more: pytest.fail("it was decided before"))
    again = within(folder, 600.0, said, monkeypatch)
    assert again.study.seeds == trial.study.seeds and again.results.look == trial.results.look


def test_other_test_items_train_nothing(folder: Path, undisturbed: Trial) -> None:
    store = folder / "undisturbed" / ".store"
    before = set(store.rglob("record.json"))
    content = {**tiny_content(folder), "name": "items"}
    content["tasks"][0]["num_test"] -= 2
    trial = run_study(parse_study(content, "study.yaml"), RunOptions(runs=folder / "undisturbed", view=False, figures=False),
                      relative_to=folder, command="finetrial run study.yaml")
    made = [json.loads(path.read_text()) for path in set(store.rglob("record.json")) - before]
    assert {record["kind"] for record in made} == {"data", "predict"}
    assert all(record["stage_id"].endswith("-test") for record in made if record["kind"] == "predict")
    assert trial.results.status == "complete" and scores(trial) != scores(undisturbed)


def test_another_seed_trains_its_own_cells_only(folder: Path, undisturbed: Trial) -> None:
    def with_seeds(*seeds: int) -> Trial:
        content = {**tiny_content(folder), "name": "more", "seeds": list(seeds)}
        return run_study(parse_study(content, "study.yaml"), RunOptions(runs=folder / "undisturbed", view=False, figures=False),
                         relative_to=folder, command="finetrial run study.yaml")

    seeds = undisturbed.study.seeds
    before = with_seeds(*seeds)
    assert sum(before.trained.values()) == 0  # recorded by another study of the same cells
    four = with_seeds(*seeds, 7)
    assert set(four.trained) == {7} and four.trained[7] == num_phases(four, 7)
    first = next(iter(additions(before.results, four)))
    assert first == f"seeds added: 7; phases trained now: {four.trained[7]} of these, 0 of the {len(seeds)} earlier seeds"
    row = four.results.tuning[0]
    other = next(rate for rate in row.learning_rates if rate != row.chosen)
    elsewhere = before.results.model_copy(
        update={"tuning": (row.model_copy(update={"chosen": other}), *four.results.tuning[1:])})
    assert list(additions(elsewhere, four))[1:] == [
        f"  moved: {row.arm}, phase {row.phase}, seed {row.seed}: {other:g} -> {row.chosen:g}"]


def num_phases(trial: Trial, seed: int) -> int:
    """Phases that a seed trains; cells may share them."""
    plan = build(trial.study, relative_to=trial.folder.parents[1])
    return len({phase.train for cell in plan.cells if cell.key.seed == seed for phase in cell.phases})


def test_a_report_is_made_again_from_the_store(undisturbed: Trial) -> None:
    page = (undisturbed.folder / "report.html").read_text()
    again = rebuild(undisturbed.folder, figures=False)
    assert again.results.scores == undisturbed.results.scores
    assert (undisturbed.folder / "report.html").read_text().count("<h2") == page.count("<h2")


@pytest.mark.slow  # kills of small stages, at every moment: test_kill.py
def test_kill_and_resume_give_the_same_scores(folder: Path, undisturbed: Trial) -> None:
    """The runner is killed three times while it works; the fourth run ends with the undisturbed scores, bit for bit."""
    command = [sys.executable, "-m", "finetrial.cli", "run", "study.yaml", "--runs", "killed"]
    store = folder / "killed" / ".store"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for kill in range(1, 4):
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        recorded = len(list(store.glob(RECORDS)))
        deadline = time.monotonic() + 240
        while process.poll() is None and len(list(store.glob(RECORDS))) < recorded + 2 * kill:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert scores(run(folder, "killed")) == scores(undisturbed)


def test_a_corrupt_entry_is_found_and_computed_again(folder: Path, undisturbed: Trial) -> None:
    planned = json.loads((undisturbed.folder / "plan.json").read_text())["stages"]
    key = next(stage["key"] for stage in planned if stage["kind"] == "predict")
    [predictions] = (folder / "undisturbed" / ".store" / "predict").glob(f"*/{key}-*/predictions.parquet")
    predictions.write_bytes(predictions.read_bytes()[:-7])
    again = run(folder, "undisturbed")
    assert len(again.corrupt) == 1 and scores(again) == scores(undisturbed)


@pytest.mark.slow  # by its parts: test_execute.py, test_outcomes.py, test_analyse.py
def test_a_rate_that_diverges_is_a_word_and_the_trial_goes_on(folder: Path) -> None:
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content["arms"][0]["learning_rates"] = [0.01, 1e30]
    content |= {"name": "diverging", "controls": None}
    trial = run_study(parse_study(content, "study"), RunOptions(runs=folder / "runs", view=False, figures=False),
                      relative_to=folder)
    wild = [score for score in trial.results.scores if score.point.learning_rate == 1e30 and score.step is None]
    assert wild and {score.outcome.value for score in wild} == {"DIVERGED"} and {s.value for s in wild} == {None}
    assert trial.results.status == "complete"
    assert "DIVERGED" in json.dumps(trial.results.model_dump(mode="json"))


def test_a_split_too_small_stops_before_training(folder: Path) -> None:
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content["tasks"][0]["num_test"] = 5000
    content["name"] = "greedy"
    for _ in range(2):  # the second time by what is recorded
        with pytest.raises(UserError, match="lower num_test"):
            run_study(parse_study(content, "study"), RunOptions(runs=folder / "runs", view=False), relative_to=folder)
