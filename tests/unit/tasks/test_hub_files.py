"""Rows of a data set on the hub, named by its repository."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub

from finetrial.compare.inspect import task_for
from finetrial.errors import DataError
from finetrial.tasks.hub_files import hub_options
from finetrial.tasks.prompt_completion import PromptCompletion
from finetrial.tasks.text import Text


def texts(first: int, count: int) -> list[dict[str, Any]]:
    return [{"text": f"document {number} about {number * 7919}"} for number in range(first, first + count)]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def test_published_splits_are_kept(hub: LoopbackHub) -> None:
    commit = hub.add("dataset", "owner/split", {
        "README.md": b"x", "data/train-00000-of-00002.parquet": parquet(texts(0, 20)),
        "data/train-00001-of-00002.parquet": parquet(texts(20, 20)), "data/validation-00000.parquet": parquet(texts(40, 5)),
        "data/test-00000.parquet": parquet(texts(45, 6))})
    task = task_for("owner/split")
    assert isinstance(task, Text) and (task.repository, task.origin) == ("owner/split", "owner/split")
    assert (task.train, task.test) == ("data/train-0000*.parquet", "data/test-00000.parquet")
    assert {split: len(task.load().split(split)) for split in task.splits} == {"train": 40, "val": 5, "test": 6}
    assert task.fetch().startswith(f"owner/split at commit {commit}") and task.is_here


def test_without_three_splits_they_are_made_of_the_training_files(hub: LoopbackHub) -> None:
    pairs = [{"question": f"what is {number}?", "answer": f"it is {number * 31}"} for number in range(60)]
    hub.add("dataset", "owner/pairs", {"train.jsonl": lines(pairs), "test.jsonl": lines(pairs[:9])})
    task = task_for("owner/pairs", {"prompt": "question", "completion": "answer"})
    assert isinstance(task, PromptCompletion) and task.path == "train.jsonl"
    rows = task.load().rows
    assert len(rows) == 60 and {row.split for row in rows} == {"train", "val", "test"}


def test_a_revision_is_kept_and_the_network_not_asked_again(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("dataset", "owner/moves", {"rows.jsonl": lines(texts(0, 30))})
    first = task_for("owner/moves@main")
    digest = first.source_digest()
    hub.add("dataset", "owner/moves", {"rows.jsonl": lines(texts(100, 30))})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = task_for("owner/moves")
    assert again.source_digest() == digest and again.load().rows[0].fields["text"].startswith("document")
    assert again == first


def test_what_a_name_means_does_not_depend_on_what_was_fetched_before(hub: LoopbackHub) -> None:
    hub.add("dataset", "owner/three", {f"data/{split}.jsonl": lines(texts(100 * number, 30))
                                       for number, split in enumerate(("train", "val", "test"))})
    one = task_for("owner/three:data/train.jsonl")
    assert isinstance(one, Text) and one.path == "data/train.jsonl" and one.load()
    every = task_for("owner/three")
    assert isinstance(every, Text) and every.test == "data/test.jsonl" and len(every.load().rows) == 90
    assert task_for("owner/three:data/test.jsonl").load().rows


def test_a_study_reads_it_without_a_path_of_this_machine(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("dataset", "owner/plain", {"a.txt": "\n\n".join(f"text {n} " * 90 for n in range(40)).encode()})
    task = Text(repository="owner/plain", path="*.txt").located(tmp_path)
    assert task.path == "*.txt" and not task.is_here
    provisional = task.source_digest()
    assert task.fetch() and task.is_here and task.source_digest() != provisional
    assert len(task.load().rows) == 40


@pytest.mark.parametrize(("files", "reference", "message"), [
    ({"README.md": b"x"}, "owner/data", "has no file that is read"),
    ({"a/x.parquet": b"x", "b/x.parquet": b"x"}, "owner/data", "has data in several folders: a, b"),
    ({"a.csv": b"x"}, "owner/data:*.parquet", r"has no file \*.parquet; it has: a.csv"),
    ({"a.csv": b"x"}, "owner/other", "owner/other")])
def test_what_cannot_be_told(files: dict[str, bytes], reference: str, message: str, hub: LoopbackHub) -> None:
    hub.add("dataset", "owner/data", files)
    with pytest.raises(DataError, match=message):
        task_for(reference)


def test_of_several_folders_the_one_to_train_on_is_named(hub: LoopbackHub) -> None:
    hub.add("dataset", "owner/data", {"test/x.parquet": b"x", "train/x.parquet": b"x"})
    with pytest.raises(DataError) as caught:
        task_for("owner/data@main")
    assert "owner/data@main:train/*" in caught.value.mend


def test_what_describes_a_data_set_is_none_of_its_files(hub: LoopbackHub) -> None:
    hub.add("dataset", "owner/data", {"dataset_infos.json": b"{}", "metadata.jsonl": b"{}", "requirements.txt": b"x", "train.csv": b"x"})
    assert (hub_options("owner/data") or {})["path"] == "train.csv"


def test_a_file_that_is_not_there_is_no_data_set() -> None:
    assert hub_options("rows.jsonl") is None and hub_options("./owner/name") is None and hub_options("/a/b") is None
    assert hub_options("data/rows.jsonl") is None
    with pytest.raises(DataError, match="does not exist"):
        task_for("./nothing/here/rows.jsonl")


def test_of_too_many_rows_the_same_are_drawn_whatever_their_order(tmp_path: Path) -> None:
    rows = texts(0, 500)
    there, back = tmp_path / "there.jsonl", tmp_path / "back.jsonl"
    there.write_bytes(lines(rows))
    back.write_bytes(lines(rows[::-1]))
    first, second = (Text(path=str(path), max_rows=60).load() for path in (there, back))
    assert {row.id for row in first.rows} == {row.id for row in second.rows} and len(first.rows) == 60
    assert first.report.dropped["above max_rows"] == 440
    assert len(Text(path=str(there), max_rows=500).load().rows) == 500


def test_compare_draws_from_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(lines(texts(0, 300)))
    assert task_for(str(path)).max_rows is None  # type: ignore[attr-defined]
    monkeypatch.setattr("finetrial.compare.inspect.LARGE_BYTES", 1_000)
    monkeypatch.setattr("finetrial.compare.inspect.MOST_ROWS", 50)
    task = task_for(str(path))
    assert task.max_rows == 50 and len(task.load().rows) == 50  # type: ignore[attr-defined]
