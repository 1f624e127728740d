"""What a run's folder remembers of its question, in `run.json`: which numbers of seeds complete results were seen at, for
the error rate of the next look, and which seeds a time was found to hold or more seeds were added to, so that the same
command asks the same.

Seeds, declared looks, limits of the recommendation and notes may change; with anything else changed it is another
question, and its first look is a first look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetrial.fingerprint import key_of
from finetrial.run.run_file import STUDY_FILE, read_run_file, study_of_run, write_run_file
from finetrial.run.seen import SEEN
from finetrial.spec.study import Study

FIELD, WITHIN, EXTENDED = "looks", "within", "more_seeds_from"
NOT_THE_QUESTION = ("seeds", "looks", "limits", "notes")


class Looks:
    """The looks that a run's folder remembers."""

    def __init__(self, folder: Path, study: Study) -> None:
        self._folder, self._seeds = folder, study.seeds
        self._question = question_of(study)

    @property
    def earlier(self) -> tuple[int, ...]:
        """Numbers of seeds, in order of size."""
        return tuple(sorted(self._read().get(self._question, ())))

    def remember(self, num_seeds: int) -> None:
        """Complete results at so many seeds are seen from now on."""
        if num_seeds not in self.earlier:
            self._keep(FIELD, [*self.earlier, num_seeds])

    def seeds_within(self, seconds: float) -> tuple[int, ...]:
        """Those of the study's seeds that this time was found to hold; none before the first time, or if another time was
        asked for since."""
        decided = self._read(WITHIN).get(self._question)
        if not isinstance(decided, Mapping) or decided["seconds"] != seconds:
            return ()
        return tuple(seed for seed in self._seeds if seed in decided["seeds"])

    def decide(self, seeds: Sequence[int], seconds: float) -> None:
        """A run `--within` this time has these seeds from now on."""
        self._keep(WITHIN, {"seconds": seconds, "seeds": list(seeds)})

    def as_json(self, extended: Sequence[int] | None = None) -> dict[str, Any]:
        """What `run.json` holds of them. `extended`: the seeds that this run adds to, until `extension_is_complete`."""
        kept = {field: kept for field in (FIELD, WITHIN, SEEN) if (kept := self._read(field))}
        asked = extended if extended is not None else _extended(self._folder)
        return {**kept, **({EXTENDED: list(asked)} if asked is not None else {})}

    def extension_is_complete(self) -> None:
        """More seeds are added to all that there are from now on."""
        content = read_run_file(self._folder)
        if content.pop(EXTENDED, None) is not None:
            write_run_file(self._folder, content)

    def _keep(self, field: str, values: Any) -> None:
        content = read_run_file(self._folder)
        content[field] = {**self._read(field), self._question: values}
        write_run_file(self._folder, content)

    def _read(self, field: str = FIELD) -> Mapping[str, Any]:
        found: Mapping[str, Any] = read_run_file(self._folder).get(field, {})
        return found


def question_of(study: Study) -> str:
    """A digest of all that makes it another question."""
    return key_of({name: value for name, value in study.identity().items() if name not in NOT_THE_QUESTION})


def seeds_to_extend(folder: Path, study: Study) -> tuple[int, ...]:
    """The seeds that `--more-seeds` adds to: those of the run in a folder, or the study's own if it was not run yet.

    Where seeds were asked for before and their results are not complete, those that were added to then.
    """
    asked = _extended(folder)
    if asked is not None:
        return asked
    return study_of_run(folder).seeds if (folder / STUDY_FILE).is_file() else study.seeds


def _extended(folder: Path) -> tuple[int, ...] | None:
    asked = read_run_file(folder).get(EXTENDED)
    return None if asked is None else tuple(asked)
