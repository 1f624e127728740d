"""Memory that grows in a process which others have used is what those left behind, not what an arm needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Planned, Recorded
from finetrial.records.record import Outcome
from finetrial.spec.study import Study

UNLIKE_SHARE = 0.2  # baselines further apart than this share of the smaller, and than ...
UNLIKE_BYTES = 64 << 20  # ... so many bytes, belong to processes of different pasts


class SharedProcessMemory(Rule):
    """Every profile is alone in its process, and the processes began alike."""

    summary: ClassVar[str] = "memory is measured in a process that holds what another arm loaded"

    def check_plan(self, study: Study, plan: Planned) -> Iterator[Found]:
        """A threat for profiles that share a process or the machine."""
        shared = [stage for stage in plan.of_kind("profile") if stage.group or not stage.exclusive]
        if shared:
            yield Found("threat", f"{len(shared)} profiles share a process or run beside others ({shared[0].id}, ...): "
                                  "their memory and speed are not the arm's own; profile in processes of their own",
                        "profile")

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """A threat for each base whose profiles began with unlike amounts of memory in use."""
        for base in dict.fromkeys(place[0] for place in records.plan.profiles):
            begun: dict[str, list[int]] = {}
            for (of_base, arm, _), stages in records.plan.profiles.items():
                found = [records.lookup(stage) for stage in stages] if of_base == base else []
                begun.setdefault(arm, []).extend(
                    int(one.record.values["baseline_host_bytes"]) for one in found
                    if one and one.record.outcome is Outcome.OK and one.record.values.get("baseline_host_bytes"))
            least = {arm: min(values) for arm, values in begun.items() if values}
            if len(least) < 2:
                continue
            low, high = min(least, key=lambda arm: least[arm]), max(least, key=lambda arm: least[arm])
            apart = least[high] - least[low]
            if apart > max(UNLIKE_BYTES, UNLIKE_SHARE * least[low]):
                yield Found("threat", f"{high} was profiled in a process that held {least[high] / 2**20:,.0f} MiB before "
                                      f"its model was loaded, {low} in one of {least[low] / 2**20:,.0f} MiB: their peaks "
                                      "do not compare; profile in fresh processes", f"bases.{base}")
