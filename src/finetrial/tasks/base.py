"""What a task is: examples from a source, split by clusters, rendered into segments of text.

A task knows no model and no tokenizer. It yields `Example`s and renders each into `Segment`s; the encoder
(`tasks/encode.py`) turns segments into token ids with a loss mask. Segments carry the two facts a model must respect:
which text is the target (loss), and which text may be cut when the whole is too long (the document: never the
instruction, the cue or the target).

Splits: `pretrain` (a bundled base may have seen it), `train`, `val`, `test`. The unit that is split is the cluster.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from finetrial.errors import DataError
from finetrial.records.results import NATS_PER_TOKEN
from finetrial.settings import Settings

Split = Literal["pretrain", "train", "val", "test"]
SPLITS: tuple[Split, ...] = ("pretrain", "train", "val", "test")
FEWEST_SCORED = 2  # rows that a study may ask for to validate, or to test


@dataclass(frozen=True)
class Example:
    """One row. `id` comes from the content and is the same on every machine; `source` says where a person finds it."""

    id: str
    cluster: str
    split: Split
    fields: Mapping[str, str]
    source: str = ""


@dataclass(frozen=True)
class Segment:
    """A piece of rendered text. `loss`: its tokens are predicted and scored. `cuttable`: cut at its end if too long.
    `markup`: it may spell special tokens, which text otherwise never makes. `exchange`: of the earlier questions and answers of a
    conversation, counted from 1, which one it belongs to; a row that is too long loses the first ones, whole."""

    text: str
    loss: bool = False
    cuttable: bool = False
    markup: bool = False
    exchange: int = 0


ASSISTANT = "assistant"
SYSTEM = "system"


@dataclass(frozen=True)
class Turn:
    """What one speaker says in a conversation: "system", "user" or "assistant"."""

    role: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class MiningReport:
    """What a source yielded: rows per split, clusters per split, and how many rows each rule dropped, in rule order."""

    rows: Mapping[str, int]
    clusters: Mapping[str, int]
    dropped: Mapping[str, int]
    notes: tuple[str, ...] = ()


def named_files(value: str, folder: Path | None = None) -> list[Path]:
    """The files that an option names: one, or several separated by commas. `folder`: where they may lie, too."""
    whole = Path(value).expanduser()
    if "," not in value or is_there(whole) or (folder is not None and is_there(folder / whole)):
        return [whole]
    return [Path(part.strip()).expanduser() for part in value.split(",") if part.strip()]


def joined_files(files: Sequence[Path]) -> str:
    """The option that names these files. Raises DataError where a list could not be taken apart again."""
    odd = next((file for file in files if "," in str(file)), None)
    if odd is not None and len(files) > 1:
        raise DataError(f"{odd} has a comma in its path, and several files are separated by commas",
                        "rename the folder or file, or put the rows into one file")
    return ",".join(map(str, files))


def is_there(path: Path) -> bool:
    """Whether a path exists; no error for a text that is too long to be one."""
    try:
        return path.exists()
    except OSError:
        return False


@dataclass(frozen=True)
class Examples:
    """The rows of one task, all splits together, with their content digest and the mining report."""

    rows: Sequence[Example]
    digest: str
    report: MiningReport = field(default_factory=lambda: MiningReport({}, {}, {}))

    def split(self, name: Split) -> list[Example]:
        """The rows of one split, in their stable order."""
        return [row for row in self.rows if row.split == name]


class Task(Settings):
    """A task as the study writes it: its fields are its options and belong to the identity.

    A subclass lives in a file whose name is its registered name (`pydoc_chat.py` -> `pydoc-chat`), sets `version`
    (bumped when rendering or mining changes results), the metric that is primary, and the two methods below.
    """

    version: ClassVar[int] = 1
    generates: ClassVar[bool] = False  # True where the task is scored on generated outputs too
    is_chat: ClassVar[bool] = False  # True where rows may be conversations, or questions with replies, which `turns` tells
    has_tests: ClassVar[bool] = False  # True where `texts` tells `prompt` and `test`, which make an output a program
    primary_metric: ClassVar[str] = NATS_PER_TOKEN
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "bits-per-byte")  # beside it, unless the study names others
    summary: ClassVar[str] = ""  # one line for `finetrial data` and the docs
    language: ClassVar[str] = "text"  # of the target: "text", "python", "javascript"; metrics of code read it
    path_options: ClassVar[tuple[str, ...]] = ()  # options that are paths: not identity (`source_digest` is)

    @property
    def is_tested(self) -> bool:
        """Whether outputs can be run with the tests of their items."""
        return self.has_tests

    @property
    def target_language(self) -> str:
        """The language of the target, which metrics of code read: the task's, unless an option says otherwise."""
        return self.language

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits of which there are rows. A task without `train` and `val` is only scored, never trained on."""
        return SPLITS[1:]

    def located(self, folder: Path | None) -> Self:
        """The same task with relative paths made absolute: from `folder` (a study file's) where the file is there."""
        found: dict[str, str] = {}
        for option in self.path_options:
            written = getattr(self, option)
            if written is not None:
                files = [folder / path if folder is not None and is_there(folder / path) else path.absolute()
                         for path in named_files(written, folder)]
                found[option] = joined_files(files)
        return self.model_copy(update=found)

    @property
    def origin(self) -> str:
        """The repository of the hub that the rows come from; '' for rows of this machine."""
        return ""

    @property
    def is_here(self) -> bool:
        """False while rows of the hub have not been fetched yet."""
        return True

    def fetch(self, say: Callable[[str], None] | None = None) -> str:
        """Bring data that is not on this machine; returns where it comes from, in a line, or '' if there is none to bring.

        `say` is told, in a line, of each file that is downloaded. Raises DataError where it cannot be had.
        """
        return ""

    @abstractmethod
    def source_digest(self) -> str:
        """A digest of what `load` reads, without mining: the corpus lock and the miner's version, or the files' bytes.

        It is part of the identity of the data stage; equal digests and options must give equal rows.
        """

    @abstractmethod
    def load(self) -> Examples:
        """All rows with their splits. Raises DataError for unusable input."""

    @abstractmethod
    def render(self, example: Example) -> tuple[Segment, ...]:
        """The text of one row, in order. Segments with `loss` come last, without a gap."""

    def turns(self, example: Example) -> tuple[Turn, ...]:
        """The row as a conversation, for models with a chat template; none for a row that is no conversation.

        The last turn is the assistant's, its segments are the target; the others have none with `loss`. Of a task with `is_chat` that
        says no more: its prompt is asked, without the white space at its end, and its target is the reply.
        """
        if not self.is_chat:
            return ()
        segments = self.render(example)
        *asked, last = (segment for segment in segments if not segment.loss)
        return (Turn("user", (*asked, replace(last, text=last.text.rstrip()))),
                Turn(ASSISTANT, tuple(segment for segment in segments if segment.loss)))

    def texts(self, example: Example) -> Mapping[str, str]:
        """What people and metrics read of a row: `input` (the document, without instruction and cue) and `reference`."""
        segments = self.render(example)
        return {"input": "".join(segment.text for segment in segments if segment.cuttable and not segment.loss),
                "reference": "".join(segment.text for segment in segments if segment.loss)}

    def floors(self, example: Example) -> Mapping[str, str]:
        """Outputs that need no model, by name: what any adapted model should beat. Copying the input, unless more."""
        return {"copy": self.texts(example)["input"]}
