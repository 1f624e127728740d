"""The commands. Nothing heavy is imported here: a command's work lies in its own module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetrial.cli.options import (
    AcceptThreat,
    Address,
    AfterPhase,
    AllowUnsandboxed,
    AlongSequence,
    Arms,
    AsPublished,
    Columns,
    ComparedModel,
    Device,
    DeviceOption,
    ExpectSd,
    Jobs,
    Json,
    Keep,
    KeepColumns,
    Learn,
    LogLevel,
    MaxForgetting,
    MaxMemory,
    MaxTrainable,
    MoreSeeds,
    Name,
    NoRepeatNgramSize,
    NumBeams,
    OfSeed,
    On,
    OnBase,
    OnOption,
    OtherBase,
    PhaseMemory,
    PlannedDevice,
    PrecisionOption,
    Processes,
    Rate,
    RunName,
    Runs,
    Scale,
    Schema,
    Seeds,
    Set,
    Shard,
    Size,
    Stack,
    Store,
    Timeout,
    Tokens,
    Track,
    Version,
    Within,
)

app = typer.Typer(
    help="Controlled trials of ways to adapt a pretrained language model.\n\n"
         "Start with: finetrial run perplexity --size demo",
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100})


@app.callback()
def options(version: Version = False) -> None:
    """Options before the command."""


@app.command()
def run(context: typer.Context, name: Name, size: Size = None, scale: Scale = None, base: OtherBase = None, set_: Set = None,
        seeds: Seeds = None, arms: Arms = None, jobs: Jobs = None, device: DeviceOption = Device.AUTO, precision: PrecisionOption = None,
        runs: Runs = Path("runs"), store: Store = None, accept_threat: AcceptThreat = None, as_published: AsPublished = False,
        more_seeds: MoreSeeds = None, within: Within = None, timeout: Timeout = None, allow_unsandboxed: AllowUnsandboxed = False,
        stack: Stack = "auto", processes: Processes = 1, shard: Shard = False,
        log_level: Annotated[LogLevel, typer.Option(help="How much goes into the stages' logs.")] = LogLevel.INFO,
        track: Track = None, on: OnOption = On.LOCAL, address: Address = None, memory: PhaseMemory = None) -> None:
    """Run a study, analyse it, report.

    What is recorded already is not computed again: run the same command to resume."""
    from finetrial.cli.running import run_command
    from finetrial.cli.study import Changes

    changes = Changes(scale, size, tuple(set_ or ()), seeds, arms, precision and precision.value, tuple(accept_threat or ()),
                      as_published, base)
    run_command(name, changes, runs=runs, store=store, device=device.value, jobs=jobs, log_level=log_level.value,
                timeout_minutes=timeout, command=context.obj["command"], more_seeds=more_seeds, allow_unsandboxed=allow_unsandboxed,
                within=within, track=track, stack=stack, processes=processes, shard=shard, on=on.value, address=address, memory=memory)


@app.command()
def plan(name: Name, size: Size = None, scale: Scale = None, base: OtherBase = None, set_: Set = None, seeds: Seeds = None,
         arms: Arms = None, device: PlannedDevice = Device.AUTO.value, precision: PrecisionOption = None, runs: Runs = Path("runs"),
         store: Store = None, accept_threat: AcceptThreat = None, as_published: AsPublished = False,
         expect_sd: ExpectSd = None, rate: Rate = None, processes: Processes = 1, shard: Shard = False, json: Json = False) -> None:
    """Show what a run would do, and what is done already.

    Stages by kind, the grid of arms, learning rates and seeds, what each arm trains, the memory, disk and time it needs,
    threats to validity, and the differences that the run could find, as far as the noise is known."""
    from finetrial.cli.planning import plan_command
    from finetrial.cli.study import Changes
    from finetrial.run.remote import located

    changes = Changes(scale, size, tuple(set_ or ()), seeds, arms, precision and precision.value, tuple(accept_threat or ()),
                      as_published, base)
    plan_command(name, changes, store=located(store, runs), device=device, as_json=json, expect_sd=expect_sd, rate=rate,
                 processes=processes, shard=shard)


@app.command()
def compare(
        context: typer.Context, model: ComparedModel, learn: Learn, keep: Keep = None,
        within: Annotated[str, typer.Option(metavar="TIME", help="How long it may take: 30min, 2h, 90s.")] = "30min",
        arms: Annotated[str | None, typer.Option(metavar="LIST", help="What to compare; full,lora:r=8,lora:r=32 "
                                                 "unless given.")] = None,
        max_memory: MaxMemory = None, max_forgetting: MaxForgetting = None, max_trainable: MaxTrainable = None,
        columns: Columns = None, keep_columns: KeepColumns = None,
        revision: Annotated[str | None, typer.Option(metavar="REV", help="Of a hub repository.")] = None,
        accept_threat: AcceptThreat = None, jobs: Jobs = None, device: DeviceOption = Device.AUTO, runs: Runs = Path("runs"),
        store: Store = None) -> None:
    """Compare ways to adapt your own model, on your own data, within a time.

    Reads the data, times a few steps of each arm, fits learning rates, seeds and steps to the time, runs, and answers
    on one page. The study that it ran is written as study.yaml."""
    from finetrial.cli.comparing import Asked, compare_command

    asked = Asked(model, learn, keep, within, arms, max_memory, max_forgetting, max_trainable, revision, columns, keep_columns)
    compare_command(asked, runs=runs, store=store, device=device.value, jobs=jobs, accept=tuple(accept_threat or ()),
                    command=context.obj["command"])


@app.command()
def studies() -> None:
    """List the built-in studies."""
    from finetrial.cli.showing import studies_command

    studies_command()


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="STUDY|RUN", help="A study to print as YAML, or the folder of a "
                                             "finished run to print its answers.")],
         size: Size = None, scale: Scale = None, as_published: AsPublished = False, runs: Runs = Path("runs")) -> None:
    """Print a study as YAML, or the answers of a run."""
    from finetrial.cli.showing import show_command

    show_command(name, scale, size, runs, as_published)


@app.command()
def status(name: Annotated[str | None, typer.Argument(metavar="RUN", help="One run; all unless given.")] = None,
           runs: Runs = Path("runs")) -> None:
    """Show how far the runs are.

    Works while they run, from another terminal."""
    from finetrial.cli.status import status_command

    status_command(name, runs)


@app.command()
def profile(name: Name, size: Size = None, scale: Scale = None, base: OtherBase = None, set_: Set = None, arms: Arms = None,
            device: DeviceOption = Device.AUTO, precision: PrecisionOption = None, runs: Runs = Path("runs"),
            store: Store = None, accept_threat: AcceptThreat = None) -> None:
    """Measure the speed and memory of every arm of a study.

    Trains a few steps of each, alone, and nothing else: for a match on train_time, and for the time that finetrial plan
    forecasts. A run does not measure again what is recorded."""
    from finetrial.cli.running import profile_command
    from finetrial.cli.study import Changes

    changes = Changes(scale, size, tuple(set_ or ()), None, arms, precision and precision.value, tuple(accept_threat or ()), base=base)
    profile_command(name, changes, runs=runs, store=store, device=device.value)


@app.command()
def report(name: RunName, runs: Runs = Path("runs"), track: Track = None) -> None:
    """Build the report of a run again.

    From the store, complete or not; computes no stage."""
    from finetrial.cli.running import report_command

    report_command(name, runs, track)


@app.command()
def export(context: typer.Context,
           run: RunName,
           arm: Annotated[str, typer.Argument(metavar="ARM", help="Which arm.")],
           output: Annotated[Path, typer.Option(metavar="DIR", help="Where to write; must be empty or absent.")],
           merge: Annotated[bool, typer.Option("--merge", help="One model that plain transformers loads, not adapters.")] = False,
           seed: OfSeed = None, phase: AfterPhase = None, base: OnBase = None, sequence: AlongSequence = None,
           runs: Runs = Path("runs")) -> None:
    """Write an arm's weights for plain peft or transformers, with a card.

    At the learning rate that validation chose."""
    from finetrial.cli.using import export_command

    which = {"seed": seed, "phase": phase, "base": base, "sequence": sequence}
    export_command(run, arm, output, merge, which, runs, context.obj["command"])


@app.command()
def generate(run: RunName,
             prompt: Annotated[str, typer.Option(metavar="TEXT", help="What the models are to go on from.")], arms: Arms = None,
             tokens: Tokens = 64, num_beams: NumBeams = 1, no_repeat_ngram_size: NoRepeatNgramSize = 0, base: OnBase = None,
             sequence: AlongSequence = None, runs: Runs = Path("runs")) -> None:
    """Let the base and every arm of a run answer a prompt, one below the other."""
    from finetrial.cli.using import generate_command

    generate_command(run, prompt, arms, runs, base=base, sequence=sequence, tokens=tokens, num_beams=num_beams,
                     no_repeat_ngram_size=no_repeat_ngram_size)


@app.command("open")
def open_(name: RunName, runs: Runs = Path("runs")) -> None:
    """Open a run's report in the browser."""
    from finetrial.cli.using import open_command

    open_command(name, runs)


@app.command()
def init(output: Annotated[Path, typer.Argument(metavar="FILE", help="The study file to write.")] = Path("study.yaml")) -> None:
    """Write a study of your own to start from: every part of it, with comments."""
    from finetrial.cli.using import init_command

    init_command(output)


@app.command()
def gc(runs: Runs = Path("runs"), store: Store = None,
       yes: Annotated[bool, typer.Option("--yes", help="Free it; otherwise only say what would be freed.")] = False) -> None:
    """Free what no run needs any more.

    Entries of the store that the runs' studies do not name; only said, unless --yes is given."""
    from finetrial.cli.using import gc_command

    gc_command(runs, store, yes)


@app.command()
def data(name: Name, size: Size = None, scale: Scale = None, base: OtherBase = None, set_: Set = None, as_published: AsPublished = False,
         rows: Annotated[int, typer.Option(min=0, max=50, metavar="N", help="Rows shown of each task.")] = 3) -> None:
    """Mine and show the data of a study.

    Rows in each split, what each rule dropped, what is cut, and rows with the scored text marked."""
    from finetrial.cli.data import data_command
    from finetrial.cli.study import Changes

    data_command(name, Changes(scale, size, tuple(set_ or ()), as_published=as_published, base=base), rows)


@app.command()
def fetch(name: Name, size: Size = None, scale: Scale = None, base: OtherBase = None, set_: Set = None) -> None:
    """Bring a study's bases and data from the hub.

    Only that; a run does it, too. Revisions are resolved to commits and kept; run it again to resume."""
    from finetrial.cli.fetching import fetch_command
    from finetrial.cli.study import Changes

    fetch_command(name, Changes(scale, size, tuple(set_ or ()), base=base))


@app.command()
def pretrain(recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Which base.")] = "tiny-gpt",
             output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the base is written; a "
                                                         "folder of its name unless given.")] = None,
             threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads on a CPU.")] = 2,
             device: DeviceOption = Device.CPU) -> None:
    """Make a bundled base again, by its recipe.

    From the embedded corpus; takes an hour or more. Run the same command to resume."""
    from finetrial.cli.running import pretrain_command

    pretrain_command(recipe, output or Path(recipe), threads, device.value)


@app.command()
def doctor(store: Annotated[Path, typer.Option(metavar="DIR", help="The store to examine.")] = Path("runs/.store"),
           network: Annotated[bool, typer.Option("--network", help="Try to reach the hub, too.")] = False) -> None:
    """Examine this machine, and say how to mend it.

    Packages, devices, memory, disk, store, corpus, a short training. Exit code 1 if something fails."""
    from finetrial.cli.doctor import doctor_command

    doctor_command(store, network)


@app.command()
def schema(what: Annotated[Schema, typer.Argument(help="What to describe.")]) -> None:
    """Print the JSON schema of a study or its results."""
    from finetrial.cli.showing import schema_command

    schema_command(what.value)
