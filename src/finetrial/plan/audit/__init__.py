"""Threats to validity, found in the study before it runs: one rule a file.

A threat refuses the run unless it is accepted by name (`accept_threats` in the study, `--accept-threat` on the command
line); the report prints what was accepted. Warnings and notes never refuse.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetrial import catalog
from finetrial.errors import AuditError, UserError, unknown
from finetrial.records.results import AuditFinding
from finetrial.spec.study import Study


def audit(study: Study, accepted: Sequence[str] = ()) -> tuple[AuditFinding, ...]:
    """What every rule finds. Raises UserError for an accepted name that is no rule."""
    names = catalog.names("rule")
    accept = {catalog.registered_name(name) for name in (*study.accept_threats, *accepted)}
    for name in sorted(accept - set(names)):
        raise UserError(unknown("threat", name, names), "accept a threat by the name of its rule")
    return tuple(AuditFinding(rule=name, severity=found.severity, message=found.message, where=found.where,
                              accepted=name in accept)
                 for name in names for found in catalog.find("rule", name)().check(study))


def refuse(findings: Sequence[AuditFinding]) -> None:
    """Raise AuditError if there is a threat that was not accepted."""
    threats = [finding for finding in findings if finding.severity == "threat" and not finding.accepted]
    if threats:
        lines = "\n".join(f"  - {finding.rule}: {finding.message}" for finding in threats)
        names = " ".join(f"--accept-threat {name}" for name in dict.fromkeys(finding.rule for finding in threats))
        raise AuditError(f"the study's arms cannot be compared as they are written:\n{lines}",
                         f"mend the study, or run it all the same with {names}; the report will say so")
