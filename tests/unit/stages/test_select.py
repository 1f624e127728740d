"""Which rate the next phase of a seed starts from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from finetrial.scorers.repetition import Repetition
from finetrial.stages.score import SCORES
from finetrial.stages.select import Select

SEEDS, OPTIONS = (0, 1, 2), ("0.001", "0.01")


def chosen(inputs: dict[str, Any], seed: int, *, tasks: tuple[str, ...] = ("new",), **spec: Any) -> Any:
    context: Any = SimpleNamespace(inputs=inputs, spec={"seed": seed, "seeds": SEEDS, "options": OPTIONS, "tasks": tasks, **spec})
    return Select().run(context)


def predicted(*, nll: float, num_tokens: int = 10) -> Any:
    return SimpleNamespace(record=SimpleNamespace(values={"nll": nll, "num_tokens": num_tokens}))


def scored(folder: Path, metric: str, statistics: list[list[float]]) -> Any:
    folder.mkdir()
    with (folder / SCORES).open("wb") as file:
        np.savez(file, **{f"model/{metric}": np.array(statistics)})
    return SimpleNamespace(folder=folder)


def of_all(tmp_path: Path, metric: str, values: dict[tuple[str, int], float]) -> dict[str, Any]:
    """One item a score: hits, and of how many."""
    return {f"rate={option}/seed={seed}/task=new": scored(tmp_path / f"{option}-{seed}", metric, [[10 * value, 10.0]])
            for (option, seed), value in values.items()}


def test_by_the_loss_of_the_other_seeds() -> None:
    nll = {("0.001", 0): 1.0, ("0.01", 0): 99.0, **{(option, seed): 20.0 + 10 * (option == "0.001") for option in OPTIONS
                                                     for seed in (1, 2)}}
    inputs = {f"rate={option}/seed={seed}/task=new": predicted(nll=value) for (option, seed), value in nll.items()}
    assert chosen(inputs, 0) == {"chosen": "0.01", "validation": {"0.001": 3.0, "0.01": 2.0}}
    assert chosen(inputs, 1)["chosen"] == "0.001"  # seed 0 has its say


def test_by_a_metric_higher_is_better(tmp_path: Path) -> None:
    values = {("0.001", 0): 0.9, ("0.001", 1): 0.2, ("0.001", 2): 0.3, ("0.01", 0): 0.1, ("0.01", 1): 0.4, ("0.01", 2): 0.5}
    inputs, metric = of_all(tmp_path, "exact-match", values), {"kind": "exact-match"}
    found = chosen(inputs, 0, metric=metric)
    assert found["chosen"] == "0.01" and found["validation"] == pytest.approx({"0.001": 0.25, "0.01": 0.45})
    assert chosen(inputs, 1, metric=metric)["chosen"] == "0.001"


def test_by_a_metric_lower_is_better(tmp_path: Path) -> None:
    assert not Repetition.higher_is_better
    values = {(option, seed): 0.5 - 0.1 * (option == "0.01") for option in OPTIONS for seed in SEEDS}
    assert chosen(of_all(tmp_path, "repetition", values), 0, metric={"kind": "repetition"})["chosen"] == "0.01"


def test_equals_are_equal_in_any_order(tmp_path: Path) -> None:
    """As in the analysis: what is chosen here must be what is read there."""
    values = {(option, seed): value for option, row in zip(OPTIONS, ((0.9, 0.3, 0.2, 0.1), (0.9, 0.1, 0.2, 0.3)), strict=True)
              for seed, value in enumerate(row)}
    inputs = of_all(tmp_path, "exact-match", values)
    assert chosen(inputs, 0, metric={"kind": "exact-match"}, seeds=(0, 1, 2, 3))["chosen"] == "0.001"


def test_a_rate_whose_outputs_are_missing_is_out(tmp_path: Path) -> None:
    """Not made, or made and without a value: an item that could not be judged is NaN."""
    inputs = of_all(tmp_path, "exact-match", {("0.001", seed): 0.1 for seed in SEEDS} | {("0.01", 1): 0.9})
    assert chosen(inputs, 0, metric={"kind": "exact-match"})["validation"]["0.01"] is None
    inputs["rate=0.01/seed=2/task=new"] = scored(tmp_path / "nan", "exact-match", [[np.nan, np.nan]])
    assert chosen(inputs, 0, metric={"kind": "exact-match"}) == {"chosen": "0.001", "validation": {"0.001": pytest.approx(0.1), "0.01": None}}
    with pytest.raises(ValueError, match="no learning rate of"):
        chosen({}, 0, metric={"kind": "exact-match"})


def test_the_tasks_of_a_joint_phase_count_by_their_items(tmp_path: Path) -> None:
    inputs = {f"rate={option}/seed={seed}/task={task}": scored(
        tmp_path / f"{option}-{seed}-{task}", "exact-match", [[float(task == "a"), 1.0]] * (1 if task == "a" else 3))
        for option in OPTIONS for seed in SEEDS for task in ("a", "b")}
    found = chosen(inputs, 0, tasks=("a", "b"), metric={"kind": "exact-match"})
    assert found["validation"] == {"0.001": 0.25, "0.01": 0.25} and found["chosen"] == "0.001"  # of equals the lower
