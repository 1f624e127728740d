"""What a study uses: bases, and tasks with how they are used in it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_serializer, field_validator, model_validator

from finetrial.catalog import registered_name
from finetrial.spec.model import Frozen, plugin_from, plugin_identity
from finetrial.tasks.base import Task
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


class TaskUse(Frozen):
    """A task as this study uses it: what it is, whether it is learned, and how many rows are used."""

    name: str = Field(pattern=NAME)
    task: SerializeAsAny[Task]
    role: Literal["learn", "outside"] = "learn"  # outside: never trained on, only scored (old-domain text)
    num_train: int | None = Field(default=None, ge=1)  # None = all
    num_val: int = Field(default=100, ge=2)
    num_test: int = Field(default=200, ge=2)
    max_tokens: int | None = Field(default=None, ge=8)  # None = the training's sequence length
    max_new_tokens: int = Field(default=96, ge=1)  # the longest output of a task that generates
    sampling: Sampling | None = None  # how outputs are chosen; None = the most likely token each time
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

    @field_validator("task", mode="before")
    @classmethod
    def _find_task(cls, value: Any) -> Any:
        return plugin_from("task", value)

    @field_serializer("task")
    def _write_task(self, task: Task) -> dict[str, Any]:
        return plugin_identity(task)
