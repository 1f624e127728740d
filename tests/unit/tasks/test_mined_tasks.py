"""pydoc-chat and python-text over a small corpus, and the pieces that they share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrial import catalog
from finetrial.tasks.base import Example
from finetrial.tasks.pieces import cut_at_lines, stable_draw
from finetrial.tasks.pydoc_chat import CUE, INSTRUCTION, PydocChat, reply
from finetrial.tasks.python_text import PythonText
from finetrial.tasks.sources import corpus
from finetrial.tasks.sources.wheels import SourceFile


def _module(number: int) -> bytes:
    filler = "".join(f"constant_{number}_{line} = {line}\n" for line in range(150))
    return (f'def f{number}(x):\n    """Compute thing number {number} of all.\n\n'
            f'    Thing {number} is done in another way.\n    """\n'
            f'    y = x * {number}\n    return g{number}(y)\n\n\n{filler}').encode()


@pytest.fixture
def small_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    files = [SourceFile("pack", f"pack/m{number:03d}.py", _module(number)) for number in range(150)]
    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(corpus, "source_files", lambda: iter(files))
    monkeypatch.setattr(corpus, "MAX_PROCESSES", 1)
    monkeypatch.setattr(corpus.mine, "__defaults__", (1,))
    corpus.embedded_corpus.cache_clear()
    yield
    corpus.embedded_corpus.cache_clear()


def test_the_catalog_finds_the_tasks_and_no_machinery() -> None:
    assert {"pydoc-chat", "python-text", "text", "prompt-completion"} <= set(catalog.names("task"))
    assert catalog.find("task", "pydoc-chat") is PydocChat
    for name in catalog.names("task"):
        assert catalog.find("task", name).summary


@pytest.mark.usefixtures("small_corpus")
def test_pydoc_chat() -> None:
    task = PydocChat()
    examples = task.load()
    assert set(examples.report.rows) == {"train", "val", "test"}
    assert sum(examples.report.rows.values()) == len(examples.rows) < 150  # pretrain rows are not used
    row = examples.rows[0]
    segments = task.render(row)
    assert [segment.text for segment in segments[::2]] == [INSTRUCTION, CUE]
    assert [segment.loss for segment in segments] == [False, False, False, True]
    assert [segment.cuttable for segment in segments] == [False, True, False, False]
    assert '"""' not in segments[1].text and segments[1].text.startswith("def f")
    assert "of all.\n\nThing " in segments[3].text
    assert task.load().digest == examples.digest != PydocChat(max_reply_characters=100).load().digest
    assert task.source_digest() == corpus.corpus_digest()


@pytest.mark.usefixtures("small_corpus")
def test_python_text() -> None:
    examples = PythonText(max_rows=10).load()
    assert examples.report.rows["train"] == examples.report.rows["test"] == 10
    assert examples.report.dropped["above max_rows"] > 0
    (segment,) = PythonText().render(examples.rows[0])
    assert segment.loss and segment.cuttable and len(segment.text) <= 2_500
    everything = PythonText(max_rows=None).load()
    assert {row.id for row in examples.rows} < {row.id for row in everything.rows}
    test_clusters = {row.cluster for row in everything.split("test")}
    assert test_clusters and not test_clusters & {row.cluster for row in everything.split("train")}


def test_reply_takes_whole_sentences() -> None:
    prose = "First sentence is here. Second one follows, e.g. this. Third."
    assert reply("Summary.", "", 100) == "Summary."
    assert reply("Summary.", prose, 200) == "Summary.\n\n" + prose
    assert reply("Summary.", prose, 40) == "Summary.\n\nFirst sentence is here."
    assert reply("Summary.", prose, 20) == "Summary."


@given(st.text(st.sampled_from("ab \n"), max_size=400), st.integers(8, 60))
def test_pieces_keep_every_word_and_stay_small(text: str, size: int) -> None:
    pieces = cut_at_lines(text, size)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= size + size / 4 for piece in pieces)


def test_pieces_end_at_line_ends() -> None:
    text = "\n".join(f"    line {number}" for number in range(100)) + "\n"
    pieces = cut_at_lines(text, 200)
    assert "\n".join(pieces) + "\n" == text
    assert all(piece.startswith("    line") for piece in pieces)


def test_the_draw_depends_on_ids_only() -> None:
    rows = [Example(f"id{number}", "c", "test", {}) for number in range(100)]
    drawn = stable_draw(rows, 20)
    assert len(drawn) == 20 and [row for row in rows if row in drawn] == drawn
    assert {row.id for row in stable_draw(rows[::-1], 20)} == {row.id for row in drawn}
    assert {row.id for row in stable_draw(rows, 10)} < {row.id for row in drawn}
    assert stable_draw(rows, None) == rows
