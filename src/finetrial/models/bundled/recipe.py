"""What a recipe is: everything that differs between the bundled bases. `pretrain` does the rest, the same for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial.streams import Streams
from finetrial.train.batch import Documents
from finetrial.train.config import Training
from finetrial.train.flat import FlatDataset

SAMPLES = 5


@dataclass(frozen=True)
class CardText:
    """What a recipe says of its base: paragraphs of Markdown."""

    opening: str  # what it is
    seen: str  # how much it was trained on, after "Trained on"
    quality: str  # the gate's figures
    sampling: str  # how the samples were made


class Recipe(ABC):
    """A base's architecture, training and gate. Subclasses are frozen dataclasses; their fields are recipe.json.

    Folders called `work` hold the files of `pretrain_data`.
    """

    name: str
    tokens: int  # the budget
    learning_rate: float
    micro_batch: int
    seed: int

    @abstractmethod
    def tokenizer(self) -> Any:
        """The base's tokenizer. Ids of text are those in the files of `pretrain_data`."""

    @abstractmethod
    def random_model(self, tokenizer: Any, streams: Streams) -> Any:
        """The model before training, drawn from the stream `init`."""

    @abstractmethod
    def training(self) -> Training:
        """Budget, batch, optimizer and schedule."""

    @abstractmethod
    def text(self, work: Path, tokenizer: Any) -> FlatDataset:
        """The training text, read as this base reads it."""

    @abstractmethod
    def validation(self, work: Path, tokenizer: Any) -> Documents:
        """Some of the `val` files, whose loss goes into the log."""

    @abstractmethod
    def gate(self, model: Any, tokenizer: Any, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """Figures on files of unseen `test` clusters; `bits_per_byte` and `passed` are among them."""

    @abstractmethod
    def samples(self, model: Any, tokenizer: Any, work: Path) -> list[tuple[str, str]]:
        """(what was given, what the model wrote) for `SAMPLES` held-out texts, from a fixed seed."""

    @abstractmethod
    def card(self, facts: Mapping[str, Any], gate: Mapping[str, Any]) -> CardText:
        """What the model card says, from the manifest and the gate's figures."""
