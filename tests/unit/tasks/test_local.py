"""A user's own files: what is read, how it is split, and what a bad row is answered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from finetrial.errors import DataError
from finetrial.tasks.pieces import text_documents
from finetrial.tasks.prompt_completion import PromptCompletion
from finetrial.tasks.text import Text
from finetrial.tasks.user_rows import are_parallel


def _lines(path: Path, rows: list[object]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def _pairs(count: int, start: int = 0) -> list[object]:
    return [{"prompt": f"question {number}?", "completion": f"answer {number}"}
            for number in range(start, start + count)]


def test_one_path_is_split_by_hash(tmp_path: Path) -> None:
    task = PromptCompletion(path=_lines(tmp_path / "data.jsonl", _pairs(1_000)))
    examples = task.load()
    assert examples.report.rows == {split: len(examples.split(split)) for split in ("train", "val", "test")}
    assert examples.report.rows["train"] == pytest.approx(800, abs=50)
    assert examples.report.rows["test"] == pytest.approx(100, abs=35)
    assert sum(examples.report.rows.values()) == 1_000
    row = examples.rows[7]
    assert row.source.endswith("data.jsonl, line 8")
    assert "".join(segment.text for segment in task.render(row)) == "question 7?answer 7"


def test_splits_do_not_depend_on_the_order_of_lines(tmp_path: Path) -> None:
    rows = _pairs(60)
    first = PromptCompletion(path=_lines(tmp_path / "a.jsonl", rows)).load()
    second = PromptCompletion(path=_lines(tmp_path / "b.jsonl", rows[::-1])).load()
    assert {row.id: row.split for row in first.rows} == {row.id: row.split for row in second.rows}


def test_a_table_whose_completions_are_true_and_false(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion\nIs water wet? ,true\nIs fire cold? ,False\n")
    examples = PromptCompletion(path=str(tmp_path / "a.csv")).load()
    assert sorted(row.fields["completion"] for row in examples.rows) == ["False", "true"]


def test_rows_of_one_cluster_or_one_prompt_stay_together(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{number}", "completion": f"a{number}", "cluster": number // 10} for number in range(200)]
    rows += [{"prompt": f"q{number}", "completion": f"another {number}"} for number in range(0, 200, 10)]
    examples = PromptCompletion(path=_lines(tmp_path / "a.jsonl", rows)).load()
    assert len({row.cluster for row in examples.rows}) == 20
    by_number: dict[int, set[str]] = {}
    for row in examples.rows:
        by_number.setdefault(int(row.fields["prompt"][1:]) // 10, set()).add(row.split)
    assert all(len(splits) == 1 for splits in by_number.values())


def test_files_per_split_and_leaks(tmp_path: Path) -> None:
    task = PromptCompletion(train=_lines(tmp_path / "train.jsonl", [*_pairs(10), *_pairs(3)]),
                            val=_lines(tmp_path / "val.jsonl", _pairs(3, 8)),
                            test=_lines(tmp_path / "test.jsonl", _pairs(3, 10)))
    examples = task.load()
    assert examples.report.dropped == {"exact duplicate": 3, "prompt or document in a split held out before": 2 + 1}
    assert examples.report.rows == {"train": 8, "val": 2, "test": 3}
    prompts = [row.fields["prompt"] for row in examples.rows]
    assert len(prompts) == len(set(prompts))


def test_prompts_that_differ_in_white_space_or_case_are_one(tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "completion": str(2 * number)} for number in range(90)
            for prompt in (f"What is {number}+{number}?", f"What is  {number}+{number}? ", f"what is {number}+{number}?\n")]
    examples = PromptCompletion(path=_lines(tmp_path / "a.jsonl", rows)).load()
    assert len(examples.rows) == 270 and len({row.cluster for row in examples.rows}) == 90
    given = PromptCompletion(train=_lines(tmp_path / "train.jsonl", rows[0::3]), val=_lines(tmp_path / "val.jsonl", rows[1:60:3]),
                             test=_lines(tmp_path / "test.jsonl", rows[2:30:3])).load()
    assert given.report.rows == {"train": 70, "val": 10, "test": 10}
    assert given.report.dropped["prompt or document in a split held out before"] == 30
    assert len({row.cluster for row in given.rows}) == 90


def test_a_long_document_in_two_files_is_dropped_from_training(tmp_path: Path) -> None:
    def long(name: str) -> str:
        return "\n".join(f"line {number} of {name}" for number in range(300))

    task = Text(train=_lines(tmp_path / "a.jsonl", [{"text": long("both")}, {"text": f"{long('train')}\n"}]),
                val=_lines(tmp_path / "b.jsonl", [{"text": long("val")}, {"text": long("both").replace("line", "Line")}]),
                test=_lines(tmp_path / "c.jsonl", [{"text": long("both")}]))
    examples = task.load()
    assert {split: {row.fields["text"].split()[-1] for row in examples.split(split)} for split in ("train", "val", "test")} == {
        "train": {"train"}, "val": {"val"}, "test": {"both"}}
    assert examples.report.dropped["prompt or document in a split held out before"] == 2 * examples.report.rows["test"] > 2
    assert examples.report.clusters == {"train": 1, "val": 1, "test": 1}


def test_a_cluster_in_two_files_is_refused(tmp_path: Path) -> None:
    rows = [{"text": "some words", "cluster": "book"}]
    task = Text(train=_lines(tmp_path / "a.jsonl", [{"text": "others", "cluster": "book"}]),
                test=_lines(tmp_path / "b.jsonl", rows))
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: cluster 'book' is in train and in test"):
        task.load()


def test_the_digest_follows_content_not_names(tmp_path: Path) -> None:
    first = Text(path=_lines(tmp_path / "a.jsonl", [{"text": "one"}]))
    second = Text(path=_lines(tmp_path / "b.jsonl", [{"text": "one"}]))
    third = Text(path=_lines(tmp_path / "c.jsonl", [{"text": "two"}]))
    assert first.source_digest() == second.source_digest() != third.source_digest()
    assert first.load().digest == second.load().digest != third.load().digest
    assert Text(train=first.path).source_digest() != Text(test=first.path).source_digest()


def test_the_same_bytes_read_in_another_way_are_another_source(tmp_path: Path) -> None:
    """A .txt is a text, a .jsonl rows: renamed, a file says another thing."""
    written = {name: tmp_path / name for name in ("a.txt", "b.txt", "a.jsonl", "A.JSONL")}
    for path in written.values():
        path.write_text('{"text": "one row"}\n')
    digests = [Text(path=str(path)).source_digest() for path in written.values()]
    assert digests[0] == digests[1] != digests[2] == digests[3]


@pytest.mark.parametrize(("row", "message"), [
    ('{"prompt": "a", "completion": ', "not JSON"), ("[1, 2]", "a list, expected an object"), ('"text"', "a str"),
    ({"prompt": "a"}, "no column 'completion'; there are 'prompt'"), ({"prompt": "a", "completion": 3}, '"completion" is 3'),
    ({"prompt": "", "completion": "b"}, "\"prompt\" is ''"), ({"prompt": "a", "completion": None}, "is None"),
    ({"prompt": "a", "completion": "b", "cluster": ["x"]}, '"cluster" is')])
def test_bad_rows_name_file_and_line(row: object, message: str, tmp_path: Path) -> None:
    path = _lines(tmp_path / "data.jsonl", [*_pairs(2), "", row])
    with pytest.raises(DataError) as caught:
        PromptCompletion(path=path).load()
    assert f"{path}, line 4" in caught.value.problem and message in caught.value.problem


def test_names_of_tables_in_capitals_are_those_of_tables(tmp_path: Path) -> None:
    for name in ("A.CSV", "B.CSV"):
        (tmp_path / name).write_text("prompt,completion\n" + "".join(f"{name} {number},answer {number}\n" for number in range(30)))
    paths = [tmp_path / "A.CSV", tmp_path / "B.CSV"]
    task = PromptCompletion(path=",".join(map(str, paths)))
    assert len(task.load().rows) == 60 and not are_parallel(paths)
    for name in ("a.tsv", "b.tsv"):
        (tmp_path / name).write_text("prompt\tcompletion\nx\ty\n")
    with pytest.raises(DataError, match="a data file is .*, not '.tsv'"):
        PromptCompletion(path=f"{tmp_path / 'a.tsv'},{tmp_path / 'b.tsv'}").load()


def test_ids_must_be_unique(tmp_path: Path) -> None:
    rows = [{"text": "first", "id": 1}, {"text": "second", "id": 1}]
    with pytest.raises(DataError, match=r"line 2 and .*line 1 have the same id '1'"):
        Text(path=_lines(tmp_path / "a.jsonl", rows)).load()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes(b"fine\nna\xefve\n")
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "page.html").write_text("<p>")
    for name, message in (("empty.txt", "has no rows"), ("latin.txt", "line 2: byte 0xef is not UTF-8"),
                          ("table.csv", "has no rows"), ("page.html", "a data file is"), ("none.txt", "does not exist"),
                          (".", "is a folder")):
        with pytest.raises(DataError, match=message):
            Text(path=str(tmp_path / name)).load()
    with pytest.raises(DataError, match=r"a data file is \.jsonl"):
        PromptCompletion(path=str(tmp_path / "empty.txt")).load()


@pytest.mark.parametrize("options", [{}, {"path": "a", "train": "b"}])
def test_one_way_of_naming_files(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="give either `path`"):
        Text(**options)


def test_text_files_are_cut_into_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first story\n\nstill first<|endoftext|>\nsecond story<|endoftext|>\n")
    examples = Text(path=str(tmp_path / "a.txt")).load()
    assert [row.fields["text"] for row in examples.rows] == ["first story\n\nstill first", "second story"]
    assert len({row.cluster for row in examples.rows}) == 2


def test_blank_lines_make_pieces_of_at_least_500_characters() -> None:
    blocks = [f"block {number} " + "word " * 30 for number in range(20)]
    documents = text_documents("\n\n".join(blocks))
    assert "\n\n".join(documents) == "\n\n".join(blocks)
    assert all(len(document) >= 500 for document in documents) and len(documents) == 5
    assert text_documents("short") == ["short"]


def test_long_documents_become_rows_of_one_cluster(tmp_path: Path) -> None:
    long = "\n".join(f"line {number} of a long document" for number in range(300))
    rows = Text(path=_lines(tmp_path / "a.jsonl", [{"text": long, "id": "long"}, {"text": "short one"}])).load().rows
    own = [row for row in rows if row.id.startswith("long#")]
    assert len(own) == 4 and len({row.cluster for row in own}) == 1
    assert "\n".join(row.fields["text"] for row in own) == long
    assert len({row.cluster for row in rows}) == 2
