"""What complete results have shown, and which hypotheses were stated before: kept in each run's `run.json`.

A hypothesis that is turned round, reworded in its contrast or added once the results that it speaks of were seen is
exploratory, as is one whose family lost members then. Results were seen where an arm was trained in the same way, on
the same tasks, with one of the same seeds: in this run, in those that it set aside, and, of studies that users write,
in the runs beside it. Studies that ship with finetrial brought their hypotheses along.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from finetrial.errors import StoreError
from finetrial.fingerprint import key_of
from finetrial.run.run_file import EARLIER, RUN_FILE, read_run_file, write_run_file
from finetrial.spec.hypothesis import FLOOR, Hypothesis, Side
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import BASE_ARM, Study

SEEN = "seen"  # in run.json: a row for each set of results that was seen
NAMES = ("left", "right", "interaction", "task", "learned", "base", "sequence", "left_base", "right_base", "left_sequence",
         "right_sequence")  # of a contrast: what it speaks of, which digests stand for
Place = tuple[str, str, str]  # arm, base, sequence


@dataclass(frozen=True)
class Showing:
    """Complete results that were seen, by digests: of how each arm was trained, of tasks and of hypotheses."""

    at: str  # UTC, sorts by time
    seeds: list[int]
    lines: list[str]
    tasks: list[str]
    hypotheses: list[str]

    def shows(self, asked: _Asked, seeds: Collection[int]) -> bool:
        """Whether these results are, of some of the seeds, what a hypothesis compares."""
        return bool({*self.seeds} & {*seeds}) and asked.lines <= {*self.lines} and asked.tasks <= {*self.tasks}


@dataclass(frozen=True)
class _Asked:
    """What a hypothesis compares, and its own digest: the same under other names of arms and tasks, and in other words."""

    lines: frozenset[str]
    tasks: frozenset[str]
    digest: str


def remember_showing(folder: Path, study: Study, at: str) -> None:
    """Complete results of a study are seen from now on. `at`: the time, as `job.utc_now` tells it. Raises StoreError."""
    new = Showing(at, list(study.seeds), sorted({*_lines(study).values()}),
                  sorted({_task(study, use.name) for use in study.tasks}), sorted(asked.digest for asked in _asked(study).values()))
    content = read_run_file(folder)
    rows = content.get(SEEN, [])
    if not any({**row, "at": at} == asdict(new) for row in rows):
        write_run_file(folder, {**content, SEEN: [*rows, asdict(new)]})


def stated_after(folder: Path, study: Study) -> dict[str, str]:
    """The hypotheses of a study that were not stated before results which they speak of were seen, each with a sentence
    on why. The first such results decide."""
    every = _asked(study)
    shown = sorted(_showings(folder, study), key=lambda showing: showing.at)
    found = {}
    for name, asked in every.items():
        first = next((showing for showing in shown if showing.shows(asked, study.seeds)), None)
        if first is None:
            continue
        dropped = len({*first.hypotheses} - {other.digest for other in every.values()})
        if asked.digest not in first.hypotheses:
            found[name] = "stated after these results were seen: exploratory; confirm it with new seeds"
        elif dropped:
            found[name] = (f"{dropped} of the {len(first.hypotheses)} hypotheses that it was stated with were left out after "
                           "these results were seen: exploratory; ask them too, or confirm it with new seeds")
    return found


def _showings(folder: Path, study: Study) -> Iterator[Showing]:
    places = [folder, *folder.glob(f"{EARLIER}/*")]
    if study.scale == "custom":
        places += [path.parent for place in ("*", f"*/{EARLIER}/*") for path in folder.parent.glob(f"{place}/{RUN_FILE}")]
    for place in dict.fromkeys(places):
        with contextlib.suppress(StoreError, TypeError):  # of a file that cannot be read its own run tells
            yield from [Showing(**row) for row in read_run_file(place).get(SEEN, ())]


def _asked(study: Study) -> dict[str, _Asked]:
    lines = _lines(study)
    return {hypothesis.name: _of_hypothesis(study, hypothesis, lines) for hypothesis in study.hypotheses}


def _of_hypothesis(study: Study, hypothesis: Hypothesis, lines: Mapping[Place, str]) -> _Asked:
    def line(side: Side) -> str:
        place = side.arm, side.base or study.bases[0].name, side.sequence or study.paths[0].name
        return lines.get(place, side.arm)  # a floor is its own

    tasks = {name: _task(study, name) for contrast in hypothesis.contrasts for name in (contrast.task, contrast.learned) if name}
    trained = {line(side) for contrast in hypothesis.contrasts for side in contrast.sides if not side.arm.startswith(FLOOR)}
    groups = [[{**{name: value for name, value in contrast.identity().items() if name not in NAMES},
                "sides": [line(side) for side in contrast.sides],
                "tasks": [tasks.get(contrast.task), tasks.get(contrast.learned)]} for contrast in group]
              for group in hypothesis.groups]
    return _Asked(frozenset(trained), frozenset(tasks.values()), key_of([groups, hypothesis.primary]))


def _lines(study: Study) -> dict[Place, str]:
    """(arm, base, sequence) -> a digest of what was trained, in which order, on what, and how."""
    found = {}
    for base in study.bases:
        for path in study.every_path:
            tasks = [[_task(study, name) for name in joined_tasks(phase)] for phase in path.tasks]
            found[BASE_ARM, base.name, path.name] = key_of(base.identity())
            for arm in study.arms_along(path):
                how = arm.model_dump(mode="json", exclude={"name", "label", "factors", "sequences", "training"})
                found[arm.name, base.name, path.name] = key_of([base.identity(), tasks, how, study.training_of(arm).identity()])
    return found


def _task(study: Study, name: str) -> str:
    """A digest of a task as the study uses it, whichever metrics are read from it on however many items."""
    return key_of(study.task(name).model_dump(mode="json", exclude={"name", "metrics", "num_val", "num_test"}))
