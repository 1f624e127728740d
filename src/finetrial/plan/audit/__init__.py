"""Threats to validity: one rule a file, each looking at the study, the plan, the data or the records.

A threat refuses the run unless it is accepted by name (`accept_threats` in the study, `--accept-threat` on the command
line); the report prints what was accepted. Warnings and notes never refuse. What only the records show comes too late to
refuse anything: the report says it.

    refuse(audit(study))                          # before planning
    refuse(audit_plan(study, plan))               # before anything runs
    refuse(audit_data(study, plan, lookup))       # after the `data` stages, before training
    audit_records(study, plan, lookup, table, results)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from finetrial import catalog
from finetrial.errors import AuditError, UserError, unknown
from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Planned, Prepared, Recorded
from finetrial.plan.plan import Plan
from finetrial.records.results import AuditFinding, Results
from finetrial.records.table import Table
from finetrial.spec.study import Study
from finetrial.stages.base import Lookup

NOT_PLUGINS = ("overlap", "views")

__all__ = ["audit", "audit_data", "audit_plan", "audit_records", "refuse"]


def audit(study: Study) -> tuple[AuditFinding, ...]:
    """What every rule finds in the study as written. Raises UserError for an accepted name that is no rule."""
    return _ask(study, lambda rule: rule.check(study))


def audit_plan(study: Study, plan: Plan) -> tuple[AuditFinding, ...]:
    """What every rule finds in the plan and in the folders of its bases."""
    planned = Planned(plan)
    return _ask(study, lambda rule: rule.check_plan(study, planned))


def audit_data(study: Study, plan: Plan, lookup: Lookup) -> tuple[AuditFinding, ...]:
    """What every rule finds in the data that are recorded. `lookup` gives what is recorded of a stage by its id."""
    prepared = Prepared(study, plan, lookup)
    return _ask(study, lambda rule: rule.check_data(study, prepared))


def audit_records(study: Study, plan: Plan, lookup: Lookup, table: Table, results: Results) -> tuple[AuditFinding, ...]:
    """What every rule finds in the records of a run, complete or not."""
    recorded = Recorded(plan, lookup, table, results)
    return _ask(study, lambda rule: rule.check_records(study, recorded))


def refuse(findings: Sequence[AuditFinding]) -> None:
    """Raise AuditError if there is a threat that was not accepted."""
    threats = [finding for finding in findings if finding.severity == "threat" and not finding.accepted]
    if threats:
        lines = "\n".join(f"  - {finding.rule}: {finding.message}" for finding in threats)
        names = " ".join(f"--accept-threat {name}" for name in dict.fromkeys(finding.rule for finding in threats))
        raise AuditError(f"the study's arms cannot be compared as they are written:\n{lines}",
                         f"mend the study, or run it all the same with {names}; the report will say so")


def _ask(study: Study, look: Callable[[Rule], Iterable[Found]]) -> tuple[AuditFinding, ...]:
    names = catalog.names("rule")
    accept = {catalog.registered_name(name) for name in study.accept_threats}
    for name in sorted(accept - set(names)):
        raise UserError(unknown("threat", name, names), "accept a threat by the name of its rule")
    return tuple(AuditFinding(rule=name, severity=found.severity, message=found.message, where=found.where,
                              accepted=name in accept)
                 for name in names for found in look(catalog.find("rule", name)()))
