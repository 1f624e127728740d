"""Published data sets: from the loopback hub and from local files in the same columns; real files where they are."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import LoopbackHub
from pydantic import ValidationError
from rows_by_hand import REAL

from finetrial.errors import DataError
from finetrial.tasks.base import Examples
from finetrial.tasks.cnn_dailymail import CnnDailymail
from finetrial.tasks.code_search_net import CodeSearchNet
from finetrial.tasks.humaneval import Humaneval
from finetrial.tasks.mbpp import Mbpp
from finetrial.tasks.oasst1 import Oasst1
from finetrial.tasks.published import PublishedTask

Rows = Sequence[dict[str, Any]]


def _parquet(rows: Rows) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), data)
    return data.getvalue()


def _jsonl(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _articles(start: int, stop: int) -> Rows:
    return [{"article": f"News number {n} came in. It is long. It ends. Really.", "highlights": f"News {n} .\nIt ends .",
             "id": f"id{n}"} for n in range(start, stop)]


def _contents(examples: Examples) -> list[tuple[str, str]]:
    return sorted((row.id, row.split) for row in examples.rows)


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    """As in rows of one's own."""
    numbered = [{**row, "id": number} for number, row in enumerate(_articles(0, 30))]
    found = CnnDailymail(path=_jsonl(tmp_path / "news.jsonl", numbered)).load()
    assert len(found.rows) == 30


@pytest.fixture
def news(hub: LoopbackHub) -> LoopbackHub:
    hub.add("dataset", "abisee/cnn_dailymail", {
        "3.0.0/train-00000-of-00002.parquet": _parquet(_articles(0, 30)),
        "3.0.0/train-00001-of-00002.parquet": _parquet([*_articles(30, 50), *_articles(60, 62)]),
        "3.0.0/validation-00000-of-00001.parquet": _parquet(_articles(50, 60)),
        "3.0.0/test-00000-of-00001.parquet": _parquet(_articles(60, 70)),
        "1.0.0/train-00000-of-00001.parquet": _parquet(_articles(70, 80)), "README.md": b"#"})
    return hub


def test_rows_without_an_article_are_counted(hub: LoopbackHub) -> None:
    blank = [{"article": "", "highlights": "Only a summary .", "id": "x"}, {"article": "A text.", "highlights": " ", "id": "y"},
             {"article": None, "highlights": "Another .", "id": "z"}]
    hub.add("dataset", "abisee/cnn_dailymail", {f"3.0.0/{split}-00000-of-00001.parquet": _parquet([*rows, *blank])
                                                for split, rows in (("train", _articles(0, 20)),
                                                                    ("validation", _articles(20, 25)),
                                                                    ("test", _articles(25, 30)))})
    report = CnnDailymail().load().report
    assert report.rows == {"train": 20, "val": 5, "test": 5}
    assert report.dropped["no article, or no highlights"] == 9


def test_given_splits_are_kept_and_kept_apart(news: LoopbackHub) -> None:
    task = CnnDailymail()
    examples = task.load()
    assert examples.report.rows == {"train": 50, "val": 10, "test": 10}
    assert examples.report.dropped["in a held-out split too"] == 2
    assert "abisee/cnn_dailymail at commit" in examples.report.notes[0] and "(main), 4 files" in examples.report.notes[0]
    row = examples.rows[0]
    assert row.fields["article"] == "News number 0 came in. It is long. It ends. Really." and row.cluster == "id0"
    assert task.floors(row)["lead-3"] == "News number 0 came in. It is long. It ends."
    assert task.texts(row) == {"input": row.fields["article"], "reference": "News 0 .\nIt ends ."}


def test_identity_is_provisional_until_the_first_fetch(news: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    task = CnnDailymail()
    provisional = task.source_digest()
    assert news.requests == []  # planning asks no network
    told = task.fetch()
    final = task.source_digest()
    assert provisional != final != CnnDailymail(revision="v2").source_digest()
    commit = news.repositories["dataset", "abisee/cnn_dailymail"].refs["main"]
    assert commit in told and CnnDailymail(revision=commit).source_digest() == final
    before = task.load()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    news.requests.clear()
    assert task.load() == before and news.requests == []


def test_local_files_give_the_same_rows(news: LoopbackHub, tmp_path: Path) -> None:
    train = _jsonl(tmp_path / "train.jsonl", [*_articles(0, 50), *_articles(60, 62)])
    (tmp_path / "val.parquet").write_bytes(_parquet(_articles(50, 60)))
    (tmp_path / "test.json").write_text(json.dumps(_articles(60, 70)))
    local = CnnDailymail(train=train, val=str(tmp_path / "val.parquet"), test=str(tmp_path / "test.json"))
    examples = local.load()
    assert _contents(examples) == _contents(CnnDailymail().load()) and examples.digest == CnnDailymail().load().digest
    assert "local: " in examples.report.notes[0] and "SHA-256" in examples.report.notes[0]


def test_one_local_file_is_split_by_clusters(tmp_path: Path) -> None:
    rows = [{**row, "id": ""} for row in _articles(0, 200)]
    examples = CnnDailymail(path=_jsonl(tmp_path / "all.jsonl", [*rows, rows[0]])).load()
    assert examples.report.dropped["exact duplicate"] == 1
    assert sum(examples.report.rows.values()) == 200 and examples.report.rows["train"] > 140


def test_articles_that_say_nearly_the_same_stay_in_one_split(tmp_path: Path) -> None:
    articles = [" ".join(f"word{(number * 37 + place * place * 11) % 997}" for place in range(40)) for number in range(100)]
    rows = [{"article": article, "highlights": f"News {number} ."} for number, article in enumerate(articles)]
    more = [{**row, "article": f"{row['article']} extra"} for row in rows]
    examples = CnnDailymail(path=_jsonl(tmp_path / "a.jsonl", [*rows, *more])).load()
    splits: dict[str, set[str]] = {}
    for row in examples.rows:
        splits.setdefault(row.fields["highlights"], set()).add(row.split)
    assert len(examples.rows) == 200 and all(len(own) == 1 for own in splits.values())


def test_prompts_are_compared_in_their_normal_form(tmp_path: Path) -> None:
    def rows(*articles: str) -> Rows:
        return [{"article": article, "highlights": f"{article} !"} for article in articles]

    examples = CnnDailymail(train=_jsonl(tmp_path / "train.jsonl", rows("Some  news.", "others")),
                            test=_jsonl(tmp_path / "test.jsonl", rows("some news"))).load()
    assert [row.fields["article"] for row in examples.rows if row.split != "test"] == ["others"]


def test_a_row_that_is_dropped_takes_no_other_with_it(tmp_path: Path) -> None:
    """The row of val falls for its cluster; its prompt is then in no held-out split."""
    def row(cluster: str, prompt: str) -> Rows:
        return [{"article": prompt, "highlights": f"{cluster} of {prompt}", "id": cluster}]

    examples = CnnDailymail(train=_jsonl(tmp_path / "train.jsonl", row("D", "P2")), val=_jsonl(tmp_path / "val.jsonl", row("C", "P2")),
                            test=_jsonl(tmp_path / "test.jsonl", row("C", "P1"))).load()
    assert examples.report.dropped["in a held-out split too"] == 1
    assert {row.fields["article"] for row in examples.rows} == {"P1", "P2"}


def test_draw_and_column_names(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", [{"body": row["article"], "highlights": row["highlights"]}
                                         for row in _articles(0, 200)])
    task = CnnDailymail(path=path, columns={"article": "body"}, max_rows=20)
    examples = task.load()
    assert examples.report.rows["train"] == 20 and examples.report.dropped["above max_rows"] > 100
    with pytest.raises(DataError, match="no column 'article'; there are 'body', 'highlights'"):
        CnnDailymail(path=path).load()
    with pytest.raises(ValidationError, match="did you mean 'article'"):
        CnnDailymail(path=path, columns={"artikle": "body"})
    with pytest.raises(ValidationError, match="give `path`, or `train`"):
        CnnDailymail(path=path, test=path)


def test_a_row_without_a_reference(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", [*_articles(0, 3), {"article": "Some news.", "highlights": " "}])
    with pytest.raises(DataError, match=r'a.jsonl, line 4: "highlights" is \' \', expected a text'):
        CnnDailymail(path=path).load()


def _message(name: str, parent: str | None, text: str, **changes: Any) -> dict[str, Any]:
    role = "prompter" if name[-1] in "024" else "assistant"
    return {"message_id": name, "parent_id": parent, "text": text, "role": role, "lang": "en", "rank": None,
            "review_result": True, "deleted": False, "message_tree_id": name[0], **changes}


TREE = [
    _message("a0", None, "Hello? "), _message("a1", "a0", " Hi!", rank=1), _message("ab1", "a0", "Good day!", rank=0),
    _message("a2", "a1", "How are you?"), _message("a3", "a2", "Fine."),
    _message("b0", None, "Gone", deleted=True), _message("b1", "b0", "Reply"),
    _message("c0", None, "Bad", review_result=False), _message("c1", "c0", "Reply"),
    _message("d1", "d0", "Root is missing"), _message("e0", None, "Hallo", lang="de"), _message("e1", "e0", "Tag", lang="de"),
    _message("f0", None, "So?"), _message("f1", "f0", " \n"), _message("g1", None, "Nobody asked"),
    _message("h0", None, "So?"), _message("h1", "h0", "Not reviewed", review_result=None)]


def test_trees_become_pairs(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "trees.jsonl", TREE)
    examples = Oasst1(path=path).load()
    assert {row.fields["reply"] for row in examples.rows} == {"Good day!", "Fine."}
    assert {rule: number for rule, number in examples.report.dropped.items() if number} == {
        "deleted on the path": 1, "path broken": 1, "refused in review": 2, "another language": 1, "blank text": 1,
        "does not follow a prompter": 1, "a sibling ranks higher": 1}
    row = next(row for row in examples.rows if row.fields["reply"] == "Fine.")
    segments = Oasst1(path=path).render(row)
    assert [segment.exchange for segment in segments] == [1, 1, 0, 0]
    assert "".join(segment.text for segment in segments) == (
        "User: Hello?\n\nAssistant:\nHi!\n\nUser: How are you?\n\nAssistant:\nFine.")
    everything = Oasst1(path=path, replies="all").load()
    assert {row.fields["reply"] for row in everything.rows} == {"Good day!", "Hi!", "Fine."}
    assert {row.cluster for row in everything.rows} == {everything.rows[0].cluster}
    assert [row.fields["reply"] for row in Oasst1(path=path, lang="de").load().rows] == ["Tag"]


def test_a_message_of_neither_side(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "trees.jsonl", [*TREE, _message("a4", "a3", "Be brief.", role="system"), _message("a5", "a4", "Yes.")])
    with pytest.raises(DataError, match="line 18: a message of role 'system'"):
        Oasst1(path=path).load()


def test_a_table_of_messages(tmp_path: Path) -> None:
    """A .csv says true and false in words."""
    with (tmp_path / "trees.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(TREE[0]))
        table.writeheader()
        table.writerows(TREE)
    lines = Oasst1(path=_jsonl(tmp_path / "trees.jsonl", TREE)).load()
    table_rows = Oasst1(path=str(tmp_path / "trees.csv")).load()
    assert _contents(table_rows) == _contents(lines) and table_rows.report.dropped == lines.report.dropped


def test_messages_that_nobody_reviewed(tmp_path: Path) -> None:
    """Without the column there is no review to pass; a column of nothing is a review that none passed."""
    rows = [{name: value for name, value in message.items() if name != "review_result"} for message in TREE]
    examples = Oasst1(path=_jsonl(tmp_path / "a.jsonl", rows)).load()
    assert examples.report.dropped["refused in review"] == 0
    assert {row.fields["reply"] for row in examples.rows} >= {"Fine.", "Not reviewed"}
    empty = Oasst1(path=_jsonl(tmp_path / "b.jsonl", [{**row, "review_result": None} for row in rows])).load()
    assert not empty.rows


def test_the_trees_of_train_lend_val(hub: LoopbackHub) -> None:
    def trees(names: range) -> bytes:
        return _parquet([message for n in names for message in (
            _message(f"{n}x0", None, f"Question {n}?", message_tree_id=f"t{n}"),
            _message(f"{n}x1", f"{n}x0", f"Answer {n}.", message_tree_id=f"t{n}", rank=0))])

    hub.add("dataset", "OpenAssistant/oasst1", {"data/train-0.parquet": trees(range(100)),
                                                "data/validation-0.parquet": trees(range(100, 110))})
    rows = Oasst1().load().report.rows
    assert rows["test"] == 10 and rows["train"] + rows["val"] == 100 and 1 <= rows["val"] <= 12


def test_rows_of_one_prompt_are_lent_together(tmp_path: Path) -> None:
    """Two files, documented alike: whichever split they come to, it is the same one."""
    def rows(name: str, numbers: range) -> list[dict[str, str]]:
        return [{"repo": "r", "path": f"{name}{n}.py", "func_name": f"f{n}", "docstring": f"Returns the number {n}.",
                 "code": f"def f{n}(self):\n    return {n} + {len(name)}"} for n in numbers]

    train = _jsonl(tmp_path / "train.jsonl", [*rows("a", range(200)), *rows("bb", range(200))])
    test = _jsonl(tmp_path / "test.jsonl", rows("c", range(500, 520)))
    found = CodeSearchNet(train=train, test=test).load()
    splits: dict[str, set[str]] = {}
    for row in found.rows:
        splits.setdefault(row.fields["docstring"], set()).add(row.split)
    assert found.report.rows["val"] > 4 and all(len(of_prompt) == 1 for of_prompt in splits.values())
    assert found.report.rows["train"] + found.report.rows["val"] == 400


PYTHON_ROWS = [
    {"repo": "r", "path": "p.py", "func_name": "A.f", "docstring": "Return one.",
     "code": 'def f(self):\n        """Return one."""\n        x = 1\n        return x'},
    {"repo": "r", "path": "p.py", "func_name": "g", "docstring": "Give two.", "code": "def g():\r\n    return 2"},
    {"repo": "r", "path": "q.py", "func_name": "h", "docstring": "Only that.", "code": 'def h():\n    """Only that."""'},
    {"repo": "r", "path": "q.py", "func_name": "i", "docstring": "Broken.", "code": "def i(:\n    pass"}]
JAVASCRIPT_ROWS = [{"docstring": "Return one.", "code": "// Return one.\nfunction f() {\n  return 1; // one\n}"},
                   {"docstring": "Broken.", "code": "function ( {"}, {"docstring": "Nothing.", "code": "// nothing"}]


def test_documentation_is_taken_out_of_the_code(tmp_path: Path) -> None:
    task = CodeSearchNet(path=_jsonl(tmp_path / "p.jsonl", PYTHON_ROWS))
    examples = task.load()
    assert {row.fields["code"] for row in examples.rows} == {
        "def f(self):\n        x = 1\n        return x", "def g():\n    return 2"}
    assert examples.report.dropped["code does not parse"] == examples.report.dropped["nothing but documentation"] == 1
    assert len({row.cluster for row in examples.rows}) == 1 and task.language == "python"

    task = CodeSearchNet(path=_jsonl(tmp_path / "j.jsonl", JAVASCRIPT_ROWS), programming_language="javascript")
    (row,) = task.load().rows
    assert row.fields["code"] == "function f() {\n  return 1; // one\n}" and task.language == "javascript"
    assert task.render(row)[0].text == "Write a JavaScript function.\n\n"


@pytest.mark.parametrize("code", [
    "foo(a) {\n  return a;\n}", "static foo() { return 1; }", "async foo() { await 1; } // end", "get x() { return 1; }",
    "constructor() {\n  super();\n}", "*all() { yield 1; }"])
def test_methods_of_a_javascript_class(code: str, tmp_path: Path) -> None:
    rows = [{"docstring": "Do it.", "code": f"/** Do it. */\n{code}"}, {"docstring": "Two.", "code": f"{code}\nbar() {{}}"}]
    examples = CodeSearchNet(path=_jsonl(tmp_path / "a.jsonl", rows), programming_language="javascript").load()
    assert [row.fields["code"] for row in examples.rows] == [code]
    assert examples.report.dropped["code does not parse"] == 1


@pytest.mark.parametrize(("code", "stripped"), [
    ('@cached\ndef f():\n    """Do it."""\n    return 1', "@cached\ndef f():\n    return 1"),
    ("@cached\ndef f():\n    return 1", "@cached\ndef f():\n    return 1"),
    ('async def f():\n    """Do it.""" ; x = 1\n    return x', "async def f():\n    x = 1\n    return x"),
    ("def f(): 'Do it.'; return 1", "def f(): return 1")])
def test_python_functions_of_any_form(code: str, stripped: str, tmp_path: Path) -> None:
    (row,) = CodeSearchNet(path=_jsonl(tmp_path / "a.jsonl", [{"docstring": "Do it.", "code": code}])).load().rows
    assert row.fields["code"] == stripped
    compile(stripped, "code", "exec")


def test_each_language_is_a_folder_of_one_commit(hub: LoopbackHub) -> None:
    def files(rows: Rows) -> dict[str, bytes]:
        return {f"{language}/{split}-0.parquet": _parquet([{**row, "path": f"{split}{row.get('path')}", "repo": "r",
                                                            "docstring": f"{split} {row['docstring']}"} for row in rows])
                for split in ("train", "validation", "test")}

    language = "python"
    both = files(PYTHON_ROWS)
    language = "javascript"
    commit = hub.add("dataset", "google/code_x_glue_ct_code_to_text", {**both, **files(JAVASCRIPT_ROWS)})
    assert CodeSearchNet().load().report.rows == {"train": 2, "val": 2, "test": 2}
    hub.add("dataset", "google/code_x_glue_ct_code_to_text", {})
    javascript = CodeSearchNet(programming_language="javascript").load()
    assert javascript.report.rows == {"train": 1, "val": 1, "test": 1} and commit in javascript.report.notes[0]


@pytest.mark.parametrize(("task", "folder", "row", "texts"), [
    (Humaneval(), "openai_humaneval", {"task_id": "HumanEval/0", "prompt": "def one():\n", "entry_point": "one",
                                       "canonical_solution": "    return 1\n", "test": "def check(f):\n    assert f() == 1"},
     {"input": "def one():\n", "reference": "    return 1", "prompt": "def one():\n",
      "test": "\ndef check(f):\n    assert f() == 1\ncheck(one)\n"}),
    (Mbpp(), "full", {"task_id": 11, "text": "Give one.", "code": "def one():\r\n    return 1\r\n",
                      "test_setup_code": "x = 1", "test_list": ["assert one() == x"]},
     {"input": "Give one.\n\nIt must pass these tests:\nassert one() == x", "reference": "def one():\n    return 1",
      "prompt": "", "test": "\nx = 1\nassert one() == x\n"}),
    (Mbpp(subset="sanitized"), "sanitized", {"task_id": 11, "prompt": "Give one.", "code": "def one():\n    return x",
                                             "test_imports": ["x = 1"], "test_list": ["assert one() == x"]},
     {"input": "Give one.\n\nIt must pass these tests:\nassert one() == x", "reference": "def one():\n    return x",
      "prompt": "", "test": "\nx = 1\nassert one() == x\n"})])
def test_problems_with_tests(task: PublishedTask, folder: str, row: dict[str, Any], texts: dict[str, str],
                             hub: LoopbackHub) -> None:
    others = {"train": {**row, "task_id": 601}, "validation": {**row, "task_id": 511}} if folder != "openai_humaneval" else {}
    hub.add("dataset", task.repository, {f"{folder}/{split}-0.parquet": _parquet([one])
                                         for split, one in {**others, "test": row}.items()})
    examples = task.load()
    (found,) = examples.split("test")
    assert task.texts(found) == texts and task.render(found)[-1].text == texts["reference"]
    program = texts["prompt"] + texts["reference"] + texts["test"]
    subprocess.run([sys.executable, "-I", "-c", program], check=True)


def test_bad_problems(tmp_path: Path) -> None:
    row = {"task_id": 11, "text": "Give one.", "code": "x", "test_list": ["assert x"]}
    for name, value, message in (("task_id", 3_000, '"task_id" is 3000, expected a number from 1 to 974'),
                                 ("test_list", [], '"test_list" is empty'), ("code", None, '"code" is None'),
                                 ("test_list", [1], '"test_list" is \\[1\\], expected a list of texts')):
        with pytest.raises(DataError, match=f"x.jsonl, line 1: {message}"):
            Mbpp(path=_jsonl(tmp_path / "x.jsonl", [{**row, name: value}])).load()


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL}")
class TestRealFiles:
    """The published files themselves."""

    def test_oasst1(self) -> None:
        path = str(REAL / "oasst1" / "en-validation.jsonl")
        best, everything = Oasst1(path=path).load(), Oasst1(path=path, replies="all").load()
        assert len(best.rows) == 474 and sum(not row.fields["history"] for row in best.rows) == 188
        assert len({row.cluster for row in best.rows}) == 188
        assert len(everything.rows) == 1_184
        assert list(everything.report.dropped.values())[:3] == [28, 2, 28]

    def test_humaneval(self) -> None:
        assert Humaneval(path=str(REAL / "humaneval" / "HumanEval.jsonl.gz")).load().report.rows == {"test": 164}

    def test_mbpp(self) -> None:
        assert Mbpp(path=str(REAL / "mbpp" / "mbpp_974.jsonl")).load().report.rows == {"train": 374, "val": 90, "test": 500}
