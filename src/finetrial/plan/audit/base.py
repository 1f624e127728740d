"""What an audit rule is: it looks at a trial at the moments at which it can see something, and says what threatens it.

    at the study      before anything else: what is written
    at the plan       what will be run: stages, and the bases that were found
    at the data       the records of finished `data` stages: what was encoded and cut, and the rows themselves
    at the records    when the run is over: item scores, costs, choices of rates, findings

A rule overrides the methods of its moments. Rules see specification, plan, data and records only, and load no model.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from finetrial.plan.audit.views import Planned, Prepared, Recorded
from finetrial.spec.study import Study

Severity = Literal["note", "warning", "threat"]
Moment = Literal["study", "plan", "data", "records"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)


@dataclass(frozen=True)
class Found:
    """One finding. `threat`: the comparison is confounded; `warning`: it is weaker than it looks; `note`: to know."""

    severity: Severity
    message: str
    where: str = ""


class Rule(ABC):  # noqa: B024 (a rule overrides at least one method; which one is its own choice)
    """A rule; its file's name is the name by which a threat is accepted."""

    summary: ClassVar[str] = ""  # one line for the docs

    def check(self, study: Study) -> Iterable[Found]:
        """Everything that the study, as written, shows."""
        return ()

    def check_plan(self, study: Study, plan: Planned) -> Iterable[Found]:
        """Everything that the plan shows."""
        return ()

    def check_data(self, study: Study, data: Prepared) -> Iterable[Found]:
        """Everything that the encoded data show. Data stages that are not finished are absent."""
        return ()

    def check_records(self, study: Study, records: Recorded) -> Iterable[Found]:
        """Everything that the records show, of a partial run too."""
        return ()

    @classmethod
    def looks_at(cls) -> tuple[Moment, ...]:
        """The moments at which this rule looks: those whose methods it overrides."""
        methods = {"study": "check", "plan": "check_plan", "data": "check_data", "records": "check_records"}
        return tuple(moment for moment in MOMENTS if getattr(cls, methods[moment]) is not getattr(Rule, methods[moment]))
