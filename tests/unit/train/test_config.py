import math
from itertools import pairwise

import pytest
from pydantic import ValidationError

from finetrial.train.config import Budget, Training


@pytest.mark.parametrize(("text", "amount", "unit", "dumped"), [
    ("80 steps", 80, "steps", "80 steps"), ("75k tokens", 75_000, "tokens", "75k tokens"),
    ("75000 tokens", 75_000, "tokens", "75k tokens"), ("2 epochs", 2, "epochs", "2 epochs"),
    ("1 epoch", 1, "epochs", "1 epochs"), ("3M tokens", 3_000_000, "tokens", "3M tokens"),
    (" 1500 tokens ", 1500, "tokens", "1500 tokens")])
def test_budget_round_trip(text: str, amount: int, unit: str, dumped: str) -> None:
    training = Training.model_validate({"budget": text})
    assert (training.budget.amount, training.budget.unit) == (amount, unit)
    assert training.model_dump(mode="json")["budget"] == dumped
    assert Training.model_validate(training.model_dump(mode="json")) == training


@pytest.mark.parametrize("text", ["80", "80 minutes", "0 steps", "-3 steps", "1.5 epochs", "", "k tokens"])
def test_budget_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Training.model_validate({"budget": text})


def test_unit_is_identity() -> None:
    assert Budget(amount=2, unit="steps") != Budget(amount=2, unit="epochs")


def test_unknown_key_and_combination_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        Training.model_validate({"learning_rate": 1e-3})
    with pytest.raises(ValidationError, match="loss scaler"):
        Training(optimizer="muon", precision="fp16")


def test_schedules() -> None:
    cosine = Training(warmup=0.1, final=0.1)
    rates = [cosine.learning_rate_at(step, 100, 2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == pytest.approx(2.0) and rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * 0.5)) / 2))
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[99] > 0.2
    linear = Training(warmup=0, schedule="linear", final=0.5)
    assert linear.learning_rate_at(0, 10, 1.0) == 1.0
    assert linear.learning_rate_at(5, 10, 1.0) == pytest.approx(0.75)
    constant = Training(warmup=0, schedule="constant")
    assert {constant.learning_rate_at(step, 10, 3.0) for step in range(10)} == {3.0}
