"""`studies`, `show` and `schema`: what there is, printed."""

from __future__ import annotations

from pathlib import Path

from finetrial.cli.output import facts, heading, indented, print_json, say, say_line
from finetrial.cli.running import find_run, run_folders
from finetrial.cli.study import Changes, built_in_studies, find_study
from finetrial.errors import UserError
from finetrial.run.run_file import REPORT_FILE, STUDY_FILE


def studies_command() -> None:
    """Each built-in study: its name, what it asks, at which scales and sizes."""
    for name, study in built_in_studies().items():
        say(heading(name), indented(study.summary),
            indented(facts({scale: ", ".join(sizes) for scale, sizes in study.sizes.items()})))
    say("", "Run one: finetrial run NAME --size demo. Start your own from: finetrial show NAME > study.yaml")


def show_command(name: str, scale: str | None, size: str | None, runs: Path, as_published: bool = False) -> None:
    """A study as YAML, or the answers of a run. A built-in study goes before a run of its name."""
    from finetrial.spec.io import study_yaml

    folder = _run(name, runs)
    if folder is not None:
        _show_run(folder)
        return
    try:
        found = find_study(name, Changes(scale=scale, size=size, as_published=as_published))
    except UserError as error:
        if error.code == "unknown-name" and run_folders(runs):
            error.mend = f"{error.mend}; runs: {', '.join(path.name for path in run_folders(runs))}"
        raise
    say_line(study_yaml(found.study).rstrip("\n"))


def schema_command(what: str) -> None:
    """The JSON schema of `study` or `results`."""
    from finetrial.records.results import Results
    from finetrial.spec.study import Study

    print_json((Study if what == "study" else Results).model_json_schema())


def _run(name: str, runs: Path) -> Path | None:
    """The run that a name means: a folder, or a name below `runs` that is no built-in study."""
    from finetrial import catalog

    if catalog.registered_name(name) in catalog.names("study") and not (Path(name) / STUDY_FILE).is_file():
        return None
    return find_run(name, runs) if Path(name).is_dir() or (runs / name).is_dir() else None


def _show_run(folder: Path) -> None:
    """The verdict page in the terminal."""
    from finetrial.cli.answers import read_run, verdict_page

    say(*verdict_page(*read_run(folder)))
    say_line(f"\nreport: {folder / REPORT_FILE}")
