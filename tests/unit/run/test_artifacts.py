"""`artifacts/` holds the weights of a run's results, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from finetrial.plan.plan import Plan, PlannedCell, PlannedPhase
from finetrial.records.record import Outcome, Record
from finetrial.records.results import Point, Results, Score, Selection
from finetrial.records.table import CellKey
from finetrial.run.artifacts import link_artifacts
from finetrial.stages.base import StageInput

RATES = (0.01, 0.1)
Run = tuple[str, int]  # arm, seed


def plan_of(runs: Iterable[Run]) -> Plan:
    """One phase each, at two rates."""
    return Plan((), [PlannedCell(CellKey("mine", arm, "new", seed, Point(learning_rate=rate)), "arm",
                                 [PlannedPhase(1, "new", f"{arm}/{seed}/{rate}", {})])
                     for arm, seed in runs for rate in RATES])


def results_of(runs: Iterable[Run], scored: Iterable[Run]) -> Results:
    """The second rate is chosen for each run; scores of some."""
    tuning = tuple(Selection(base="mine", arm=arm, sequence="new", phase=1, task="new", seed=seed, learning_rates=RATES,
                             validation=(2.0, 1.0), chosen=0.1, at_edge=True) for arm, seed in runs)
    scores = tuple(Score(base="mine", arm=arm, sequence="new", seed=seed, phase=1, point=Point(learning_rate=0.1), selected=True,
                         task="new", split="test", metric="nats-per-token", scorer_version=1, value=1.0, higher_is_better=False)
                   for arm, seed in scored)
    return Results(study="s", scale="custom", size="demo", status="partial", tuning=tuning, scores=scores)


@pytest.fixture
def link(tmp_path: Path, make_record: Callable[..., Record]) -> Callable[..., set[str]]:
    """Links the artifacts of some runs, of which these have the outcome, and returns what lies there."""
    stored = tmp_path / "stored"
    (stored / "weights" / "main").mkdir(parents=True)
    (stored / "weights" / "main" / "weights.bin").write_text("trained")
    (stored / "state.json").write_text("[]")

    def link(outcomes: dict[Run, Outcome | None], scored: Iterable[Run] = ()) -> set[str]:
        held = {f"{arm}/{seed}/{rate}": StageInput(make_record(outcome=outcome), stored)
                for (arm, seed), outcome in outcomes.items() for rate in RATES if outcome is not None}
        link_artifacts(plan_of(outcomes), results_of(outcomes, scored), held.get, tmp_path / "artifacts")
        return {path.relative_to(tmp_path / "artifacts").as_posix() for path in (tmp_path / "artifacts").rglob("*")
                if path.is_file() or not any(path.iterdir())}

    return link


def files(*runs: Run) -> set[str]:
    return {f"mine/{arm}/new/seed-{seed}/phase-1-new/{name}" for arm, seed in runs
            for name in ("main/weights.bin", "state.json")}


OK = Outcome.OK


def test_seeds_and_arms_that_the_results_have_no_more_are_removed(link: Callable[..., set[str]]) -> None:
    assert link({("full", 0): OK, ("full", 1): OK, ("lora", 0): OK}) == files(("full", 0), ("full", 1), ("lora", 0))
    assert link({("full", 0): OK}) == files(("full", 0))


def test_a_seed_that_diverges_now_leaves_nothing_of_before(link: Callable[..., set[str]]) -> None:
    assert link({("full", 0): OK, ("full", 1): OK}) == files(("full", 0), ("full", 1))
    assert link({("full", 0): OK, ("full", 1): Outcome.DIVERGED}) == files(("full", 0))


def test_what_is_not_trained_yet_leaves_nothing_of_before(link: Callable[..., set[str]]) -> None:
    """Its rate is chosen by the other seeds already."""
    link({("full", 0): OK, ("full", 1): OK})
    assert link({("full", 0): OK, ("full", 1): None}, scored=[("full", 0)]) == files(("full", 0))


def test_weights_that_the_store_has_lost_stay_while_their_scores_do(link: Callable[..., set[str]]) -> None:
    link({("full", 0): OK})
    assert link({("full", 0): None}, scored=[("full", 0)]) == files(("full", 0))


def test_a_file_of_the_users_own_stays(link: Callable[..., set[str]], tmp_path: Path) -> None:
    link({("full", 0): OK})
    (tmp_path / "artifacts" / "mine" / "full" / "notes.txt").write_text("mine")
    assert link({("lora", 0): OK}) == {*files(("lora", 0)), "mine/full/notes.txt"}
