"""What a study uses: bases, and tasks with how they are used in it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_serializer, field_validator, model_validator

from finetrial.catalog import registered_name
from finetrial.spec.model import Frozen, plugin_from, plugin_identity
from finetrial.tasks.base import FEWEST_SCORED, Task
from finetrial.tasks.flaws import NO_FLAWS, DataFlaws

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Base(Frozen):
    """A pretrained model: a bundled name, a local directory, or a hub repository with its revision."""

    name: str = Field(pattern=NAME)
    source: str = ""  # empty = the bundled model called `name`
    revision: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Sampling(Frozen):
    """Outputs that are drawn, several an item: `num_samples` from softmax(logits / temperature), kept to the `top_k`
    likeliest tokens and to the fewest that together have probability `top_p`.

    `pass_at` is the k of pass-at-k. The draws come from a stream of the cell's seed, item by item, so that arms of one
    seed meet the same random numbers.
    """

    num_samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    pass_at: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _enough_samples(self) -> Sampling:
        if self.pass_at > self.num_samples:
            raise ValueError(f"pass_at is {self.pass_at}, which needs as many samples of an item; num_samples is "
                             f"{self.num_samples}")
        return self


class Decoding(Frozen):
    """How outputs are searched for, in the words of transformers' generation configurations.

    `num_beams` answers are followed side by side, ranked by log-probability over length ** `length_penalty`, until as many have
    ended and none in flight has, at its length of now, a higher rank; with `early_stopping` as soon as they have ended. No n-gram
    of `no_repeat_ngram_size` tokens stands twice in an output (0: any may), and none ends before `min_new_tokens`; these two hold
    for sampled outputs as well.
    """

    num_beams: int = Field(default=1, ge=1)
    length_penalty: float = Field(default=1.0, ge=-10, le=10)
    early_stopping: bool = False
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    min_new_tokens: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _of_beams(self) -> Decoding:
        named = [name for name in ("length_penalty", "early_stopping") if name in self.identity()]
        if named and self.num_beams == 1:
            raise ValueError(f"{' and '.join(named)} rank{'s' * (len(named) == 1)} answers of several beams, and num_beams is 1; "
                             "set num_beams, or leave out what ranks them")
        return self

    @property
    def constraints(self) -> str:
        """What outputs may not do, in words; empty if anything."""
        size, least = self.no_repeat_ngram_size, self.min_new_tokens
        return ", ".join(filter(None, (f"no {size}-gram of tokens twice" if size else "", f"at least {least} tokens" if least else "")))


class TaskUse(Frozen):
    """A task as this study uses it: what it is, whether it is learned, and how many rows are used."""

    name: str = Field(pattern=NAME)
    task: SerializeAsAny[Task]
    role: Literal["learn", "outside"] = "learn"  # outside: never trained on, only scored (old-domain text)
    num_train: int | None = Field(default=None, ge=1)  # None = all
    num_val: int = Field(default=100, ge=FEWEST_SCORED)
    num_test: int = Field(default=200, ge=FEWEST_SCORED)
    max_tokens: int | None = Field(default=None, ge=8)  # None = the training's sequence length
    max_new_tokens: int = Field(default=96, ge=1)  # the longest output of a task that generates
    sampling: Sampling | None = None  # outputs that are drawn; None = the most likely token each time
    decoding: Decoding | None = None  # beams, and what outputs may not do
    evaluate: bool = True  # False: a step on the way that no score is wanted for
    metrics: tuple[str, ...] = ()  # and no others but nats per token; empty = the task's primary one and what belongs to it
    flaws: DataFlaws = NO_FLAWS  # of a published design, repeated on purpose

    @property
    def primary_metric(self) -> str:
        """The metric that decides: the task's own, unless the study lists others only; then the first of them."""
        own, named = self.task.primary_metric, [registered_name(name) for name in self.metrics]
        return named[0] if named and own not in named else own

    def num_scored(self, split: str) -> int | None:
        """How many rows of a split are scored, at most; None for one that is trained on."""
        return {"val": self.num_val, "test": self.num_test}.get(split)

    @model_validator(mode="after")
    def _can_be_decoded(self) -> TaskUse:
        decoding = self.decoding or Decoding()
        named = [name for name in ("sampling", "decoding") if getattr(self, name) is not None]
        if named and not type(self.task).generates:
            raise ValueError(f"{' and '.join(named)}: {self.name} is scored by its losses, it generates no outputs; leave "
                             f"{'them' if len(named) > 1 else 'it'} out")
        if self.sampling is not None and decoding.num_beams > 1:
            raise ValueError(f"outputs of {self.name} are sampled, and searched for with {decoding.num_beams} beams; leave out "
                             "sampling, or num_beams")
        if decoding.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens of {self.name} is {decoding.min_new_tokens}, its max_new_tokens "
                             f"{self.max_new_tokens}; the least an output must have is at most the most it may have")
        return self

    @property
    def num_samples(self) -> int:
        """Outputs of an item."""
        return self.sampling.num_samples if self.sampling is not None else 1

    @property
    def num_beams(self) -> int:
        """Answers that are followed side by side for each of them."""
        return self.decoding.num_beams if self.decoding is not None else 1

    @property
    def decoded(self) -> str:
        """How its outputs are made, in words; empty for a task that does not generate."""
        if not type(self.task).generates:
            return ""
        search = self.decoding or Decoding()
        return ", ".join(filter(None, (_chosen(self.sampling, search), search.constraints, f"at most {self.max_new_tokens} tokens")))

    @field_validator("task", mode="before")
    @classmethod
    def _find_task(cls, value: Any) -> Any:
        return plugin_from("task", value)

    @field_serializer("task")
    def _write_task(self, task: Task) -> dict[str, Any]:
        return plugin_identity(task)


def _chosen(sampling: Sampling | None, search: Decoding) -> str:
    """How tokens are chosen, in words."""
    if sampling is not None:
        kept = [f"temperature {sampling.temperature:g}", "" if sampling.top_k is None else f"top {sampling.top_k}",
                "" if sampling.top_p is None else f"top-p {sampling.top_p:g}"]
        return f"{sampling.num_samples} sampled an item ({', '.join(filter(None, kept))})"
    if search.num_beams > 1:
        ranked = [f"length penalty {search.length_penalty:g}", "early stopping" if search.early_stopping else ""]
        return f"{search.num_beams} beams ({', '.join(filter(None, ranked))})"
    return "greedy"
