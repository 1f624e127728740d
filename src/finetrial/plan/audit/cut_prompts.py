"""Prompts that lose text so that they fit: what is learned and scored is then of their beginnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared, TaskData, is_plain
from finetrial.spec.study import Study

FEWEST = 0.01  # share of the rows that is worth a word
WARNING = 0.5


class CutPrompts(Rule):
    """Models read what they are asked about."""

    summary: ClassVar[str] = "prompts lose text so that they fit"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """How many prompts are cut and how much of their text is lost, where outputs are made of them, in training rows beside it; a
        warning where it is most of the test prompts."""
        for task in data.tasks:
            if not task.has_prompts or is_plain(task, "test"):
                continue
            report = task.report("test")
            share = report["num_prompts_cut"] / max(1, report["num_rows"])
            trained = _trained(task)
            if share <= FEWEST and trained <= FEWEST:
                continue
            lost = report.get("num_cut_prompt_tokens", 0)
            of_text = f", and with them {lost / (lost + report['num_prompt_tokens']):.0%} of the text of all test prompts" if lost else ""
            learned = f" ({trained:.0%} of the training rows)" if task.is_learned else ""
            yield Found("warning" if share > WARNING else "note",
                        f"{share:.0%} of the test prompts of {task.use.name} are cut to leave room for {task.use.max_new_tokens} new tokens in "
                        f"{task.max_tokens}{of_text}{learned}; what floors copy is whole. Raise max_tokens, or lower max_new_tokens",
                        f"tasks.{task.use.name}.max_tokens")


def _trained(task: TaskData) -> float:
    report: Mapping[str, int] = task.report("train") if task.is_learned else {"num_cut": 0, "num_rows": 0}
    return report["num_cut"] / max(1, report["num_rows"])
