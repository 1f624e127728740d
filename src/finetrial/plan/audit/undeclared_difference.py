"""Arms may differ in what the study declares as a factor, and in nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.study import Study


class UndeclaredDifference(Rule):
    """Training settings (length, batch, budget, precision, schedule, ...) are the same for every arm."""

    def check(self, study: Study) -> Iterator[Found]:
        """One threat for each setting that differs between arms and is not in `factors`."""
        settings = {arm.name: study.training_of(arm).model_dump(mode="json") for arm in study.arms}
        declared = set(study.factors)
        first_name, first = next(iter(settings.items()))
        for option, value in first.items():
            if {option, "training"} & declared:
                continue
            for name, other in settings.items():
                if other[option] != value:
                    yield Found("threat", f"{first_name} trains with {option} {value}, {name} with {other[option]}; "
                                          f"their difference would mix method and {option}", f"arms.{name}.training")
                    break
