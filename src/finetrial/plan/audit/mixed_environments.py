"""Results of different machines or library versions: their difference is the arms' and the machines'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Recorded
from finetrial.records.record import Environment
from finetrial.spec.study import Study

COMPARED = ("train", "predict", "generate", "profile")


class MixedEnvironments(Rule):
    """Everything that is compared was computed in one environment class."""

    summary: ClassVar[str] = "results come from different kinds of machines or library versions"

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """One threat if records are of several environment classes."""
        found: Counter[Environment] = Counter(
            entry.record.environment for stage in records.of_kind(*COMPARED)
            if (entry := records.lookup(stage.id)) is not None)
        if len(found) > 1:
            (most, many), (other, few) = found.most_common(2)
            names = [name for name in Environment.model_fields if getattr(most, name) != getattr(other, name)]
            differ = ", ".join(f"{name} {getattr(most, name)} and {getattr(other, name)}" for name in names)
            yield Found("threat", f"{many} stages are of one environment and {few} of another ({differ}): contrasts "
                                  "between them would mix arms and machines; compute all of them in one", "environment")
