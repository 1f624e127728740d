"""What `finetrial compare` prints: the plan before it starts, and one page of answers at the end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from finetrial.analysis import numbers
from finetrial.cli.output import facts, heading
from finetrial.compare.design import KEEP, LEARN, MOST_SEEDS
from finetrial.plan.audit.few_items import ITEMS
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.records.results import NATS_PER_TOKEN
from finetrial.run.artifacts import phase_folder
from finetrial.run.run_file import ARTIFACTS, REPORT_FILE, STUDY_FILE
from finetrial.spec.study import FEWEST_SEEDS
from finetrial.tasks.touching import is_touching

if TYPE_CHECKING:
    from finetrial.compare.compare import Planned
    from finetrial.compare.inspect import Inspected
    from finetrial.records.results import Results
    from finetrial.run.trial import Trial
    from finetrial.spec.study import Study
    from finetrial.spec.uses import TaskUse


def plan_page(planned: Planned) -> Iterable[RenderableType]:
    """What will be run, how long it is forecast to take, and what it could find."""
    grid, study = planned.grid, planned.study
    rows = {"model": f"{planned.request.base.name} ({planned.request.base.folder})"}
    for use, data in zip(study.tasks, planned.request.data.values(), strict=True):
        rows[use.name] = data_text(data, use, planned.request.row_tokens)
    if planned.request.keep is None:
        rows[KEEP] = "not given: forgetting is NOT MEASURED"
    rows["arms"] = ", ".join(arm.title for arm in study.arms)
    rows["grid"] = (f"{grid.rates} learning rates x {grid.seeds} seeds for each arm, and two controls; more seeds or fewer, "
                    f"{FEWEST_SEEDS} to {MOST_SEEDS}, as the first take less time or more")
    rows["a run"] = f"{grid.steps} steps of {study.training.batch_sequences} x {study.training.sequence_length} tokens"
    rows["forecast"] = numbers.seconds_text(grid.seconds)
    rows["detectable"] = _power_text(planned)
    yield heading("The plan")
    yield facts(rows)
    for name, data in planned.request.data.items():
        if (note := is_touching(data.examples.report.notes)) and planned.request.base.form == "decoder":
            yield Text(f"{name}: {note}", style="yellow")
    yield from (Text(text, style="yellow") for text in thin_tests(study))
    for arm, why in planned.left_out.items():
        yield Text(f"left out: {arm} ({why})", style="yellow")
    for arm, why in planned.beyond.items():
        yield Text(f"beyond a limit: {arm} ({why}); it is run, and not recommended", style="yellow")


def thin_tests(study: Study) -> list[str]:
    """What to say of tasks with so few test rows that the audit of the run will warn."""
    return [f"{use.name}: only {numbers.counted(use.num_test, 'row')} to test, so intervals speak of little but these: give more data "
            f"(--{use.name}), for at least {ITEMS} rows to test" for use in study.tasks if use.evaluate and use.num_test < ITEMS]


def answer_page(trial: Trial) -> tuple[list[RenderableType], list[str]]:
    """(the page, lines that must not be wrapped: how to load the weights, where study and report lie)."""
    from finetrial.cli.answers import short_answers
    from finetrial.report import view

    page = [*short_answers(view(trial.study, trial.results))]
    page.insert(1, _arms_table(trial.results))
    lines = ["", *_loading_lines(trial), f"study: {trial.folder / STUDY_FILE}",
             f"report: {trial.folder / REPORT_FILE}"]
    return page, lines


def data_text(data: Inspected, use: TaskUse, max_tokens: int) -> str:
    """How many rows are used of those that fit, how long they are, and what was left out and why."""
    rows = data.rows
    trained = f"{rows['train']:,} rows to train on, " if use.role == "learn" else ""
    text = (f"{trained}{use.num_val} of {rows['val']:,} to validate, {use.num_test} of {rows['test']:,} to test; "
            f"{data.median_tokens} tokens each (median)")
    left_out = [f"{count:,} {rule}" for rule, count in data.dropped.items()]
    if data.num_shared:
        left_out.append(f"{data.num_shared:,} that are in the new data too")
    if data.num_long:
        left_out.append(f"{data.num_long:,} whose prompt is too long, and cut would lose its end")
    if data.num_unusable:
        left_out.append(f"{data.num_unusable:,} {_why_unusable(data, max_tokens)}")
    return text + (f"; left out: {', '.join(left_out)}" if left_out else "")


def _why_unusable(data: Inspected, max_tokens: int) -> str:
    """Of plain text what is too long is cut; where nothing goes before the first token, it cannot be scored."""
    has_answers = any("completion" in row.fields for row in data.examples.rows)
    return f"whose answer does not fit in {max_tokens} tokens" if has_answers else "of which no token can be scored"


def _power_text(planned: Planned) -> str:
    """The detectable difference of each comparison, where records of these arms say how noisy they are."""
    known = [f"{row.hypothesis} {'over ' if row.at_least else ''}{numbers.plain(row.effect)} {row.unit}"
             for row in planned.power if row.effect is not None]
    if known:
        return "; ".join(known)
    return "unknown: how noisy these arms are is known once they have run; the answers state it"


def _arms_table(results: Results) -> Table:
    """What each arm learned and forgot, with intervals, and what it costs."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("\nArm", overflow="fold")
    for title in ("Learned\nnats/token", "Forgot\nnats/token", "Trains\nparameters", "Training\npeak memory",
                  "Training\ntokens/s"):
        table.add_column(title, justify="right")
    costs = {cost.arm: cost for cost in results.costs}
    for arm, role in results.roles.items():
        if role != "arm":
            continue
        cost = costs.get(arm)
        peak = None if cost is None else cost.peak_device_allocated_bytes or cost.peak_host_bytes
        table.add_row(results.arms[arm], _measured(results, "plasticity", arm, LEARN),
                      _measured(results, "forgetting", arm, KEEP),
                      numbers.short_count(cost.params_trainable if cost else None), numbers.bytes_text(peak),
                      numbers.short_count(cost.tokens_per_second if cost else None))
    return table


def _measured(results: Results, measure: str, arm: str, task: str) -> str:
    for row in results.measures:
        if (row.measure, row.arm, row.task, row.metric, row.routing) == (measure, arm, task, NATS_PER_TOKEN, "latest"):
            if row.value is None:
                break
            return "\n".join(filter(None, numbers.with_interval(row.value, row.low, row.high)))
    return "NOT\nMEASURED"


def _loading_lines(trial: Trial) -> list[str]:
    """How to load the recommended arm's weights; without a recommendation, where those of every arm lie."""
    found = trial.results.recommendation
    base, path = resolve_base(trial.study.bases[0]), trial.study.paths[0]
    artifacts = trial.folder / ARTIFACTS
    if found is None or found.arm is None:
        return [f"weights: {artifacts / base.name}"]
    folder = phase_folder(artifacts, base.name, found.arm, path.name, trial.study.seeds[0], 1, path.tasks[0]) / "main"
    held = trial.study.arm(found.arm).quantization
    load = [f"load it: {_code(folder, base)}", f'tokenizer: AutoTokenizer.from_pretrained("{base.folder}")']
    if held is not None:
        load = [(f"load it onto the base in 4 bits, as it was trained ({held}, double quantisation: docs/full-scale.md); on the "
                "base in full precision it is another model")]
    return [f"weights: {folder}", *load,
            f"as one model: finetrial export {trial.folder} {found.arm} --merge --output DIR"]


def _code(folder: Path, base: ResolvedBase) -> str:
    from finetrial.run.loading import code, places

    written = [code(place, base, source=str(base.folder), shown=str(folder)) for place in places(folder) if place.folder == folder]
    return "".join(written) or "merge it first, see the line below"
