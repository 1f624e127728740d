"""Where a space is missing between prompt and completion, and where none is."""

from __future__ import annotations

import pytest

from finetrial.tasks.base import Example
from finetrial.tasks.touching import is_touching, touching_note


def rows(prompt: str, completion: str, count: int = 40, **more: str) -> list[Example]:
    return [Example(str(number), str(number), "train", {"prompt": prompt.format(number), "completion": completion, **more})
            for number in range(count)]


@pytest.mark.parametrize(("prompt", "completion"), [
    ("what is 149 plus 10{}", "1192"), ("Question {}?", "Yes"), ("Number {}. Answer:", "- none"), ("translate {} word", "{")])
def test_touching(prompt: str, completion: str) -> None:
    (note,) = touching_note(rows(prompt, completion))
    assert note.startswith("prompt and completion touch in 40 of 40 rows") and repr(completion) in note
    assert is_touching(("another", note)) == note and is_touching(("another",)) == ""


@pytest.mark.parametrize(("prompt", "completion"), [
    ("what is {}?\n", "1192"), ("what is {}?", " 1192"), ("call {}(", "x)"), ("the end of {}", ", and more"),
    ("\u8cea\u554f{}\u306f", "\u7b54\u3048"), ("<|user|>{}<|assistant|>", "yes")])
def test_not_touching(prompt: str, completion: str) -> None:
    assert touching_note(rows(prompt, completion)) == ()


def test_only_where_nearly_all_pairs_do() -> None:
    apart = rows("{}?\n", "b", 10)
    assert touching_note([*rows("{}?", "b", 180), *apart]) == ()
    assert touching_note([*rows("{}?", "b", 190), *apart])
    assert touching_note(rows("{}?", "b", 9)) == ()
    assert touching_note(rows("{}?", "b", cue="\n")) == () == touching_note(rows("{}?", "b", history=""))
