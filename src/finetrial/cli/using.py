"""`export`, `generate`, `open`, `init`, `gc`: what is done around a run."""

from __future__ import annotations

import webbrowser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from finetrial.cli.output import as_typed, heading, indented, printable, say, say_line
from finetrial.cli.running import USUAL_RUNS, find_run
from finetrial.errors import UserError, unknown
from finetrial.run.run_file import REPORT_FILE

if TYPE_CHECKING:
    from finetrial.run.garbage import Waste
    from finetrial.run.remote_garbage import RemoteWaste


def export_command(run: str, arm: str, output: Path, merge: bool, which: Mapping[str, Any], runs: Path, command: str) -> None:
    """Write the weights and say how to load them. `which`: seed, phase, base and sequence, None where they are not asked for."""
    from finetrial.run.adapters import export, loading_of

    _no_progress_bars()
    done = export(find_run(run, runs), arm, output, merged=merge, command=command, **which)
    if done.largest_difference is not None:
        say_line(f"merged; largest difference of a logit from the unmerged model: {done.largest_difference:.2g}")
        if done.to_full_precision is not None:
            say_line(f"the adapters merged into the base in full precision would differ by {done.to_full_precision:.2g}")
    elif done.quantization is not None:
        say_line(f"the base as it was in training: from_pretrained(..., quantization_config={loading_of(done.quantization)})")
    for line in done.loading:
        say_line(f"load it: {line}")
    if not done.loading:
        say_line("these weights are a part of a model, which plain transformers loads in one piece: add --merge")
    say_line(f"written: {output}")


def generate_command(run: str, prompt: str, arms: str | None, runs: Path, *, base: str | None, sequence: str | None, tokens: int,
                     num_beams: int, no_repeat_ngram_size: int) -> None:
    """The prompt, then each answer below the arm's label as soon as it is there. Of all arms, those without weights are named."""
    from finetrial.run.adapters import NoWeights, ask, check_room, check_which
    from finetrial.run.run_file import study_of_run
    from finetrial.spec.study import BASE_ARM

    folder = find_run(run, runs)
    study = study_of_run(folder)
    check_which(study, base=base, sequence=sequence)
    labels = {BASE_ARM: f"base ({base or study.bases[0].name})", **{arm.name: arm.title for arm in study.arms}}
    chosen = [name.strip() for name in arms.split(",")] if arms else list(labels)
    for name in chosen:
        if name not in labels:
            raise UserError(unknown("arm", name, labels))
    _no_progress_bars()
    check_room(folder, prompt, tokens, base=base)
    say(heading("Prompt"), indented(Text(printable(prompt))))
    for name in chosen:
        try:
            answer = ask(folder, name, prompt, tokens, num_beams=num_beams, no_repeat_ngram_size=no_repeat_ngram_size, base=base,
                         sequence=sequence)
        except NoWeights as error:
            if arms:
                raise
            say(heading(labels[name]), indented(Text(f"no answer: {error.problem}", style="dim")))
        else:
            say(heading(labels[name]), indented(Text(printable(answer))))


def _no_progress_bars() -> None:
    """Loading a model takes a moment; a bar for each of several models hides what is printed."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def open_command(name: str, runs: Path) -> None:
    """Open the report; print its path in any case."""
    folder = find_run(name, runs)
    report = folder / REPORT_FILE
    if not report.is_file():
        raise UserError(f"{folder} has no report yet", f"finetrial report {as_typed(folder)} builds it from what is there")
    webbrowser.open(report.resolve().as_uri())
    say_line(f"report: {report}")


def init_command(output: Path) -> None:
    """A commented study that runs as it is, on the bundled base and the embedded corpus."""
    if output.exists():
        raise UserError(f"{output} exists already", "name another file: finetrial init my-study.yaml")
    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"{output}: a study file ends in .yaml", "for example finetrial init study.yaml")
    output.write_text(files("finetrial.cli").joinpath("study_template.yaml").read_text(encoding="utf-8"),
                      encoding="utf-8")
    say_line(f"written: {output}")
    say_line(f"see what it would do: finetrial plan {output}")
    say_line(f"run it: finetrial run {output}")


def gc_command(runs: Path, named_store: str | None, yes: bool) -> None:
    """What no run names, by kind; freed only if told so."""
    from finetrial.run.garbage import remove, unused
    from finetrial.run.remote import Remote, located
    from finetrial.run.remote_garbage import remove_remote, unused_remote

    store, again = located(named_store, runs), ["finetrial gc --yes"]
    again += [f"--runs {as_typed(runs)}"] if runs != USUAL_RUNS else []
    again += [f"--store {as_typed(named_store)}"] if named_store is not None else []
    if isinstance(store, str):
        remote = Remote(store)
        objects, named = unused_remote(remote, runs)
        _free(store, named, objects, "" if yes else " ".join(again), lambda: remove_remote(objects, remote, runs))
        return
    if not store.is_dir():
        raise UserError(f"there is no store at {store}", "name it with --store DIR")
    waste, named = unused(store, runs)
    _free(store, named, waste, "" if yes else " ".join(again), lambda: remove(waste, store, runs))


def _free(store: Path | str, named: Sequence[str], waste: Sequence[Waste | RemoteWaste], command: str,
          free: Callable[[], int]) -> None:
    """Free the waste; where a `command` is given, only say that it would."""
    say_line(f"runs that use {store}: {', '.join(named) or 'none'}")
    if not waste:
        say_line("nothing to free")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Kind")
    table.add_column("Entries", justify="right")
    table.add_column("MB", justify="right")
    sizes: Counter[str] = Counter()
    for entry in waste:
        sizes[entry.kind] += entry.num_bytes
    for kind, count in Counter(entry.kind for entry in waste).items():
        table.add_row(kind, f"{count:,}", f"{sizes[kind] / 1e6:,.1f}")
    say(table)
    if command:
        say_line(f"{sum(sizes.values()) / 1e6:,.1f} MB would be freed: {command}")
    else:
        say_line(f"freed {free() / 1e6:,.1f} MB")
