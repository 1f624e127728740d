"""`run`, `report` and `pretrain`: the commands that make something, and the few lines they end with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetrial.cli.output import say, say_line, warn
from finetrial.cli.quantities import read_bytes, read_seconds, read_stack
from finetrial.cli.study import Changes, find_study
from finetrial.errors import UserError
from finetrial.run.run_file import REPORT_FILE, STUDY_FILE

if TYPE_CHECKING:
    from finetrial.run.trial import Trial
    from finetrial.spec.study import Study

USUAL_RUNS = Path("runs")  # where commands look for runs unless told otherwise


def run_command(name: str, changes: Changes, *, runs: Path, store: str | None, device: str, jobs: int | None,
                log_level: str, timeout_minutes: float | None, command: str, more_seeds: int | None = None,
                allow_unsandboxed: bool = False, within: str | None = None, track: str | None = None,
                stack: str = "auto", processes: int = 1, shard: bool = False, on: str = "local", address: str | None = None,
                memory: str | None = None) -> None:
    """Run a study and print its answers, the recommendation, and where the report lies. Raises UserError where no arm came to
    its end."""
    from finetrial.run.machine import unused_accelerator

    trackers = _trackers(track)
    within_seconds = read_seconds(within) if within is not None else None
    if within is not None and more_seeds is not None:
        raise UserError("--within and --more-seeds both say how many seeds are run", "give one of them")
    if changes.seeds is not None and more_seeds is not None:
        raise UserError("--seeds and --more-seeds both say which seeds are run", "give one of them")
    found = find_study(name, changes)
    seeds_before = None
    if more_seeds is not None:
        study, seeds_before = with_more_seeds(found.study, more_seeds, runs)
        found = replace(found, study=study)
    unused = unused_accelerator(device)
    if unused and on == "local":
        warn(unused)

    if allow_unsandboxed:
        _warn_of_missing_layers()

    from finetrial.run.additions import additions
    from finetrial.run.options import RunOptions, run_folder
    from finetrial.run.trial import earlier_results, run_study

    options = RunOptions(runs=runs, store=store, device=device, jobs=jobs, log_level=log_level,
                         timeout_seconds=timeout_minutes * 60 if timeout_minutes is not None else None,
                         allow_unsandboxed=allow_unsandboxed, within_seconds=within_seconds,
                         more_seeds_from=seeds_before, stack=read_stack(stack),
                         processes=processes, shard=shard, on=on, address=address,
                         memory_bytes=read_bytes(memory, "--memory") if memory is not None else None)
    before = earlier_results(run_folder(found.study, runs)) if more_seeds is not None else None
    trial = run_study(found.study, options, relative_to=found.relative_to, command=command)
    for line in additions(before, trial) if before is not None else ():
        say_line(line)
    _say_ending(trial, trackers)
    if trial.failure is not None:
        raise trial.failure


def _warn_of_missing_layers() -> None:
    from finetrial.run.programs import missing_layers

    missing = missing_layers()
    if missing:
        warn(f"programs that models write are run without: {'; '.join(missing)}")


def with_more_seeds(study: Study, more: int, runs: Path) -> tuple[Study, tuple[int, ...]]:
    """The study with `more` seeds beyond those of its run below `runs`, or beyond its own if it was not run yet; and the
    seeds without them. Raises UserError unless at least one is asked for.
    """
    from finetrial.analysis.looks import extended
    from finetrial.run.looks import seeds_to_extend
    from finetrial.run.options import run_folder

    seeds = seeds_to_extend(run_folder(study, runs), study)
    return study.model_copy(update={"seeds": extended(seeds, more)}), seeds


def report_command(name: str, runs: Path, track: str | None = None) -> None:
    """Build a run's report again and print its answers."""
    from finetrial.run.rebuild import rebuild

    trackers = _trackers(track)
    _say_ending(rebuild(find_run(name, runs)), trackers)


def _trackers(track: str | None) -> tuple[str, ...]:
    """The trackers that `--track` names."""
    if track is None:
        return ()
    from finetrial.run.tracking import check_trackers

    return check_trackers([name.strip() for name in track.split(",") if name.strip()])


def profile_command(name: str, changes: Changes, *, runs: Path, store: str | None, device: str) -> None:
    """Measure every arm of a study, and print what was measured."""
    from rich.table import Table

    from finetrial.analysis import numbers
    from finetrial.run.options import RunOptions
    from finetrial.run.profiling import profile_study

    found = find_study(name, changes)
    speeds = profile_study(found.study, RunOptions(runs=runs, store=store, device=device), relative_to=found.relative_to)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("Arm", "Base", "Task", "Tokens/s", "A step", "Peak memory"):
        table.add_column(column, overflow="fold")
    for speed in speeds:
        measured = (numbers.short_count(speed.tokens_per_second), numbers.seconds_text(speed.step_seconds),
                    numbers.bytes_text(speed.peak_bytes)) if speed.step_seconds is not None else (speed.outcome, "", "")
        table.add_row(speed.arm, speed.base, speed.task, *measured)
    say(table)


def pretrain_command(recipe: str, output: Path, threads: int, device: str) -> None:
    """Make a base by its recipe; say whether it passed its gate."""
    from finetrial.models.bundled.pretrain import pretrain
    from finetrial.run.place import resolve_device

    gate = pretrain(recipe, output, threads=threads, device=resolve_device(device), say=say_line)
    say_line(f"gate {'passed' if gate['passed'] else 'NOT passed'}: {gate['bits_per_byte']} bits per byte")
    say_line(f"base: {output}")


def find_run(name: str, runs: Path) -> Path:
    """The folder of a run, given as a path or by its name below `runs`; a run's folder holds its study. Raises UserError with
    the runs there are."""
    from finetrial.errors import unknown

    for folder in (Path(name), runs / name):
        if (folder / STUDY_FILE).is_file():
            return folder
    there = [path.name for path in run_folders(runs)]
    raise UserError(unknown("run", name, there) if there else f"there is no run {name!r}, and none below {runs}",
                    "finetrial status lists the runs; --runs DIR says where they lie")


def run_folders(runs: Path) -> list[Path]:
    """The folders of runs below `runs`, by name."""
    return sorted(path.parent for path in runs.glob(f"*/{STUDY_FILE}"))


def _say_ending(trial: Trial, trackers: Sequence[str] = ()) -> None:
    from finetrial.cli.answers import short_answers
    from finetrial.report import view

    say(*short_answers(view(trial.study, trial.results)))
    if trial.corrupt:
        warn(f"damaged store entries were found and computed again: {', '.join(trial.corrupt)}")
    if trackers:
        from finetrial.run.tracking import track

        track(trial.folder, trackers, warn)
    say_line(f"\nreport: {trial.folder / REPORT_FILE}")
