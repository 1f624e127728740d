"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where a study is computed."""

    AUTO, CPU, CUDA, MPS = "auto", "cpu", "cuda", "mps"


class Precision(StrEnum):
    """The arithmetic of training."""

    FP32, BF16, FP16 = "fp32", "bf16", "fp16"


class LogLevel(StrEnum):
    """How much goes into the logs."""

    INFO, DEBUG = "info", "debug"


class On(StrEnum):
    """Where phases are carried out."""

    LOCAL, RAY = "local", "ray"


class Schema(StrEnum):
    """What has a JSON schema."""

    STUDY, RESULTS = "study", "results"


def _show_version(wanted: bool) -> None:
    if wanted:
        from finetrial import __version__

        typer.echo(f"finetrial {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="A built-in study (finetrial studies), a .yaml file, or a .py file with a class.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its name.")]
OfSeed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Which seed; the first unless given.")]
AfterPhase = Annotated[int | None, typer.Option("--phase", metavar="K", help="After which phase; the last unless given.")]
OtherBase = Annotated[str | None, typer.Option("--base", metavar="MODEL", help="Another model in place of the study's: a bundled "
                                               "base, a folder, or a hub repository (owner/name, owner/name@revision).")]
OnBase = Annotated[str | None, typer.Option("--base", metavar="NAME", help="On which base; the study's first unless given.")]
AlongSequence = Annotated[str | None, typer.Option("--sequence", metavar="NAME", help="Along which sequence; the first that the arm "
                                                   "goes along unless given.")]
Scale = Annotated[str | None, typer.Option(metavar="SCALE", help="Which models and data: embedded (default) or full.")]
Size = Annotated[str | None, typer.Option(metavar="SIZE", help="How much of it: demo, standard (default), thorough; at full scale "
                                                   "published-budget in place of demo.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the study, such "
                                               "as training.batch_sequences=16. May be repeated.")]
AsPublished = Annotated[bool, typer.Option("--as-published", help="A built-in study as it was published: flaws and all, "
                                           "with one flaw mended at a time, and mended.")]
Seeds = Annotated[str | None, typer.Option(metavar="N|LIST", help="A number of seeds, or the seeds: 5, or 0,1,2.")]
Arms = Annotated[str | None, typer.Option(metavar="LIST", help="Only these arms: full,lora-r8.")]
PrecisionOption = Annotated[Precision | None, typer.Option("--precision", help="The arithmetic of training; the "
                                                           "study's unless given.")]
AcceptThreat = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Run although the plan has this threat to "
                                                        "validity; the report says so. May be repeated.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute; auto takes a GPU if there is one.")]
PlannedDevice = Annotated[str, typer.Option("--device", metavar="DEVICE|SIZE", help="Whose records count: auto, cpu, cuda or "
                                            "mps. Or what has to suffice: 16GB, 6GiB, or this for what this machine "
                                            "has; the plan then says what fits and what to change.")]
Rate = Annotated[str | None, typer.Option(metavar="FLOPS", help="What matrix products reach on the device, such as "
                                          "20TFLOPS, to forecast the time by.")]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Where the runs' folders lie.")]
Store = Annotated[str | None, typer.Option(metavar="DIR|URL", help="Where finished stages are kept, a folder or an object "
                                           "store (s3://bucket/prefix); .store in the runs' folder unless given.")]
Jobs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Phases computed at once; one a core, or one on a "
                                          "GPU, unless given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MoreSeeds = Annotated[int | None, typer.Option(metavar="N", help="Add N seeds to those of the study's last run; only what "
                                               "they need is computed.")]
Within = Annotated[str | None, typer.Option(metavar="TIME", help="Run as many of the study's seeds as fit: 30min, 2h. The "
                                            "first three decide how many; the same command again asks for the same seeds.")]
Timeout = Annotated[float | None, typer.Option(min=0.01, metavar="MINUTES", help="Give up a stage after this time; its "
                                               "outcome is TIMEOUT.")]
Stack = Annotated[str, typer.Option(metavar="N|auto", help="Train up to N LoRA cells of one base and task in one pass; auto "
                                    "takes as many as pay on a GPU and fit into it, and 1 on a CPU.")]
Processes = Annotated[int, typer.Option(min=1, metavar="N", help="Compute each training phase by N processes that share its "
                                        "steps, one GPU each: same results up to rounding.")]
Shard = Annotated[bool, typer.Option("--shard", help="With --processes: split parameters, gradients and optimizer state over the "
                                     "processes while a phase trains, for models that do not fit on one GPU.")]
AllowUnsandboxed = Annotated[bool, typer.Option("--allow-unsandboxed", help="Run generated code even where layers of the "
                                                "sandbox are missing (finetrial doctor): only where nothing can be lost.")]
Tokens = Annotated[int, typer.Option(min=1, metavar="N", help="At most so many new tokens.")]
NumBeams = Annotated[int, typer.Option(min=1, metavar="N", help="Beam search: so many answers are followed side by side; 1: the "
                                       "most likely token each time.")]
NoRepeatNgramSize = Annotated[int, typer.Option(min=0, metavar="N", help="No N tokens in a row twice in an answer; 0: any may be.")]
MaxMemory = Annotated[str | None, typer.Option(metavar="SIZE", help="Recommend nothing that needs more: 16GB.")]
MaxForgetting = Annotated[str | None, typer.Option(metavar="NATS|%", help="Recommend nothing that raises the loss on the "
                                                   "old text by more: 0.05, or 5% of the base's.")]
MaxTrainable = Annotated[str | None, typer.Option(metavar="N|%", help="Recommend nothing that trains more parameters: "
                                                  "1000000, or 1%.")]
Columns = Annotated[str | None, typer.Option(metavar="OURS=THEIRS,...", help="What the columns of --learn are called: "
                                             "prompt=question,completion=answer.")]
KeepColumns = Annotated[str | None, typer.Option(metavar="OURS=THEIRS,...", help="The same for --keep.")]
ExpectSd = Annotated[str | None, typer.Option(metavar="SEEDS[,ITEMS]", help="Standard deviations to expect of a difference, "
                                              "between seeds and between items, where no record shows them: 0.02, or "
                                              "0.02,0.6.")]
ComparedModel = Annotated[str, typer.Option("--model", metavar="MODEL", help="A folder with the model, a bundled base, or a hub "
                                            "repository.")]
Learn = Annotated[str, typer.Option(metavar="FILE", help="What it must learn: .txt, or .jsonl, .json, .csv, .parquet with "
                                    "text, with prompt and completion, or with messages; two texts line by line: "
                                    "prompts.txt,completions.txt; or a data set of the hub: owner/name, "
                                    "owner/name@revision, owner/name:FILES.")]
Keep = Annotated[str | None, typer.Option(metavar="FILE", help="Text that it must not forget. Without it, forgetting is not "
                                           "measured.")]
Track = Annotated[str | None, typer.Option(metavar="LIST", help="Log the results to these experiment trackers when it is done: "
                                           "tensorboard, mlflow, wandb, trackio.")]
OnOption = Annotated[On, typer.Option("--on", help="Compute on this machine, or on the nodes of a Ray cluster; runs and store must "
                                      "then lie in folders that every node sees.")]
Address = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="With --on ray: the cluster; the one that this machine is a "
                                             "node of unless given.")]
PhaseMemory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="With --on ray: main memory that each phase "
                                                 "reserves: 4GB. Not counted unless given.")]
