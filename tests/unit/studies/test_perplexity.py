import pytest

from finetrial.errors import UserError
from finetrial.plan.audit import audit
from finetrial.spec.io import parse_study
from finetrial.studies.perplexity import Perplexity


@pytest.mark.parametrize("size", Perplexity.sizes["embedded"])
def test_every_size_is_a_fair_trial(size: str) -> None:
    study = Perplexity().study("embedded", size)
    assert parse_study(study.identity(), size) == study
    assert not [finding for finding in audit(study) if finding.severity == "threat"]
    assert len({len(arm.learning_rates) for arm in study.arms}) == 1
    assert study.controls is not None and study.controls.positive is not None
    assert all(use.num_test >= 150 for use in study.tasks)


def test_the_demo_is_what_it_promises() -> None:
    study = Perplexity().study("embedded", "demo")
    assert [arm.name for arm in study.arms] == ["full", "lora-r8"]
    assert len(study.seeds) == 3 and len(study.arms[0].learning_rates) == 3


def test_unknown_size() -> None:
    with pytest.raises(UserError, match="did you mean 'standard'"):
        Perplexity().study("embedded", "standart")
