"""prompt-completion: a user's pairs or conversations, completion tokens only.

A .jsonl, .json, .csv or .parquet with `prompt` and `completion`, or with `messages` (a list of role and content: the
last assistant message is the completion, what comes before it the prompt), and perhaps `cluster` (rows that must stay
in one split) and `id`; `columns` says how the file calls them. A prompt and its completion are used as written: put the
space or line break between them where the model wants it. Messages are written out as `User: ...` and `Assistant:`,
or as the chat template of the base's tokenizer has it, where there is one.
Two texts that belong together line by line, `path: "prompts.txt,completions.txt"`: a line break is put between.
A prompt that is too long loses its right end (of a conversation the earlier turns do, the last question and instructions of a system never); a
completion that does not fit drops the row. Both are counted. Outputs are generated where the study names a metric that
reads them (`metrics: [rouge-l, exact-match]`). Where `program` says what of a row is a program, outputs are run with the
row's `test` for `pass-at-k`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from finetrial.errors import DataError
from finetrial.tasks.base import Example, Examples, Segment, Turn
from finetrial.tasks.hub_files import HubFiles
from finetrial.tasks.local import LocalRow
from finetrial.tasks.pieces import content_id
from finetrial.tasks.touching import touching_note

if TYPE_CHECKING:
    from finetrial.tasks.sources.records import Record


class PromptCompletion(HubFiles):
    """Prompt -> completion pairs of one's own files."""

    version: ClassVar[int] = 5
    generates: ClassVar[bool] = True
    is_chat: ClassVar[bool] = True
    summary: ClassVar[str] = "your own pairs (`prompt`, `completion`) or conversations (`messages`), completion tokens only"

    target: Literal["text", "python", "javascript"] = "text"  # what a completion is, for metrics of code
    program: Literal["completion", "prompt-completion"] | None = None  # what is run, followed by the row's `test`
    columns: dict[str, str] = Field(default_factory=dict)  # our name: the file's

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        from finetrial.tasks.user_rows import check_columns

        check_columns(value, ("pairs", "messages"))
        return value

    @model_validator(mode="after")
    def _in_a_language(self) -> PromptCompletion:
        if self.program is not None and self.target == "text":
            raise ValueError(f"program: {self.program} says what is run, and `target` not in which language; write `target: python` or "
                             "`target: javascript` beside it")
        return self

    @property
    def is_tested(self) -> bool:
        """Where `program` says what is run."""
        return self.program is not None

    @property
    def target_language(self) -> str:
        """As the study says."""
        return self.target

    def load(self) -> Examples:
        """Raises DataError for a file that is missing, empty, not UTF-8 or has a bad row (file and line named), and for rows to be
        scored that lack the `test` with which they are run."""
        found = self.examples_from(self._read, self.max_rows)
        if self.program is not None:
            _check_tests(found.rows, self.columns.get("test", "test"))
        return replace(found, report=replace(found.report, notes=(*found.report.notes, *touching_note(found.rows))))

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The prompt is what may be cut; of a conversation, the exchanges before the last question."""
        prompt = example.fields["prompt"]
        completion = Segment(example.fields["completion"], loss=True)
        if "earlier" not in example.fields:
            cue = (Segment(example.fields["cue"]),) if "cue" in example.fields else ()
            return (Segment(prompt, cuttable=True), *cue, completion)
        from finetrial.tasks.chat import earlier_segments
        from finetrial.tasks.user_rows import ROLES

        return (*earlier_segments(example.fields["earlier"], example.fields["role"], ROLES), Segment(prompt), completion)

    def turns(self, example: Example) -> tuple[Turn, ...]:
        """Those of a row of messages."""
        from finetrial.tasks.chat import conversation

        fields = example.fields
        if "earlier" not in fields:
            return ()
        return conversation(fields["earlier"], fields["role"], fields["question"], fields["completion"])

    def texts(self, example: Example) -> Mapping[str, str]:
        """A person reads the whole prompt. Beside it what the sandbox puts around an output."""
        fields = example.fields
        read = {"input": fields.get("history", "") + fields["prompt"], "reference": fields["completion"]}
        if self.program is None:
            return read
        before = fields["prompt"] + fields.get("cue", "") if self.program == "prompt-completion" else ""
        return {**read, "prompt": before, "test": f"\n{fields.get('test', '')}\n"}

    def _read(self, paths: Sequence[Path]) -> Iterator[LocalRow]:
        from finetrial.tasks.user_rows import BESIDE, TEST, are_parallel, kind_of, parallel_lines, read_rows

        if are_parallel(paths):
            prompts, completions = paths
            if self.columns:
                raise DataError(f"{prompts} and {completions} are plain texts and have no columns", "leave out `columns`")
            yield from (_pair(record, cue="\n") for record in parallel_lines(prompts, completions))
            return
        beside = BESIDE if self.program is None else (*BESIDE, TEST)
        for path in paths:
            if kind_of(path, self.columns) == "messages":
                if self.program == "prompt-completion":
                    raise DataError(f"{path} holds conversations, and program: prompt-completion runs prompts as code",
                                    "write program: completion, where the reply is the whole program")
                yield from map(_conversation, read_rows(path, "messages", self.columns, beside))
            else:
                yield from map(_pair, read_rows(path, "pairs", self.columns, beside))


def _pair(record: Record, cue: str = "") -> LocalRow:
    """`cue`: what stands between both, and is never cut."""
    prompt, completion = record.text("prompt"), record.text("completion")
    return _row(record, prompt, {"prompt": prompt, **({"cue": cue} if cue else {}), "completion": completion})


def _conversation(record: Record) -> LocalRow:
    from finetrial.tasks.chat import as_text
    from finetrial.tasks.user_rows import turns_of

    turns = turns_of(record)
    return _row(record, turns.history + turns.prompt,
                {"history": turns.history, "prompt": turns.prompt, "completion": turns.reply,
                 "earlier": as_text(turns.earlier), "role": turns.role, "question": turns.question})


def _row(record: Record, prompt: str, fields: Mapping[str, str]) -> LocalRow:
    from finetrial.tasks.user_rows import TEST, row_cluster, row_id

    test = record.optional_text(TEST)
    return LocalRow(row_id(record) or content_id(prompt, fields["completion"]), row_cluster(record), prompt,
                    {**fields, **({"test": test} if test else {})}, record.where)


def _check_tests(rows: Sequence[Example], column: str) -> None:
    """Raises DataError where a row that may be scored has none."""
    lacking = [row for row in rows if row.split != "train" and "test" not in row.fields]
    if lacking:
        more = f", nor have {len(lacking) - 1} more rows for validation and test" if len(lacking) > 1 else ""
        raise DataError(f'{lacking[0].source}: no "{column}"{more}: outputs cannot be run',
                        "give each the code that fails where an answer is wrong; rows that are only trained on need none where they "
                        "lie in a file of their own (`train:`, beside `val:` and `test:`)")
