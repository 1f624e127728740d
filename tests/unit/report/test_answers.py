"""A run's answers in the terminal: what limits them stands beside them."""

from __future__ import annotations

import io

from rich.console import Console

from finetrial.cli.answers import short_answers, verdict_page
from finetrial.records.results import AuditFinding, LookRow
from finetrial.report import view

AUDIT = (AuditFinding(rule="best-rate-at-edge", severity="warning", message="extend the grid"),
         AuditFinding(rule="few-items", severity="threat", message="only 12 test items"))


def printed(parts) -> str:
    console = Console(file=io.StringIO(), width=400, markup=False)
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    return captured.get()


def test_what_limits_a_run_stands_in_its_answers(new_study, new_results):
    look = LookRow(number=2, num_looks=2, num_seeds=5, is_declared=False, alpha=0.025, caveat="exploratory, as seen before")
    text = printed(short_answers(view(new_study(), new_results(look=look, audit=AUDIT))))
    for line in ("Full fine-tuning: learning rate at the edge of its grid for 5 of 5 seeds; a better one may lie outside.",
                 "Look: exploratory. Exploratory, as seen before.", "Audit: 1 threat and 1 warning. Listed under threats"):
        assert text.count(line) == 1
    assert "LoRA r=128 (attention): learning rate at the edge" not in text and "Positive control: seen" not in text
    assert text.index("Audit: ") < text.index("Recommendation")


def test_show_tells_each_check_once_and_lists_what_the_audit_found(new_study, new_results):
    study = new_study()
    text = printed(verdict_page(study, view(study, new_results(audit=AUDIT))))
    assert text.count("Audit: 1 threat and 1 warning") == 1 and "for 5 of 5 seeds" in text
    found = text[text.index("Threats to validity"):]
    assert found.index("threat  only 12 test items (few-items)") < found.index("warning  extend the grid (best-rate-at-edge)")
