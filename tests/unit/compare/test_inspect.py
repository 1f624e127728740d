"""Users' files: every format gives the same rows, and every malformed one its own message."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub
from tiny_study import save_tiny_base

from finetrial.cli.comparison_page import data_text
from finetrial.compare.inspect import Inspected, apart, inspect, task_for, with_usable
from finetrial.errors import DataError
from finetrial.models.load import load_tokenizer
from finetrial.spec import TaskUse
from finetrial.tasks.base import Examples
from finetrial.tasks.prompt_completion import PromptCompletion
from finetrial.tasks.text import Text

ROWS = [{"prompt": f"question {number} about the sea?", "completion": f"answer {number}"} for number in range(60)]
CONVERSATION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye?"},
                {"role": "assistant", "content": "Bye."}, {"role": "user", "content": "Wait"}]


@pytest.fixture(scope="module")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(save_tiny_base(tmp_path_factory.mktemp("base")))


def lines(*rows: Any) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl":
        path.write_bytes(lines(*rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows_in_the_same_splits(suffix: str, tmp_path: Path) -> None:
    task = task_for(write(tmp_path / f"data{suffix}", ROWS))
    assert isinstance(task, PromptCompletion)
    found = {row.id: (row.split, dict(row.fields)) for row in task.load().rows}
    first = {row.id: (row.split, dict(row.fields))
             for row in PromptCompletion(path=write(tmp_path / "first.jsonl", ROWS)).load().rows}
    assert found == first and len(found) == 60


def test_columns_of_other_names(tmp_path: Path) -> None:
    renamed = [{"question": row["prompt"], "answer": row["completion"]} for row in ROWS]
    task = task_for(write(tmp_path / "data.csv", renamed), {"prompt": "question", "completion": "answer"})
    assert {row.fields["prompt"] for row in task.load().rows} == {row["prompt"] for row in ROWS}
    texts = task_for(write(tmp_path / "t.jsonl", [{"body": "some words", "text": "others"}]), {"text": "body"})
    assert isinstance(texts, Text) and texts.load().rows[0].fields["text"] == "some words"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_messages(suffix: str, tmp_path: Path) -> None:
    value: Any = json.dumps(CONVERSATION) if suffix == ".csv" else CONVERSATION
    task = task_for(write(tmp_path / f"chat{suffix}", [{"messages": value}]))
    (row,) = task.load().rows
    segments = task.render(row)
    assert [(part.loss, part.cuttable, part.exchange) for part in segments] == [
        (False, False, 0), (False, True, 1), (False, True, 1), (False, False, 0), (True, False, 0)]
    assert [part.text for part in segments] == ["System: Be brief.\n\n", "User: Hello\n\n", "Assistant:\nHi\n\n",
                                                "User: Bye?\n\nAssistant:\n", "Bye."]
    assert task.texts(row)["input"] == "".join(part.text for part in segments[:-1])


PAIR = {"prompt": "a", "completion": "b"}
MALFORMED: list[tuple[str, bytes, dict[str, str], str]] = [
    ("empty.txt", b"", {}, "empty.txt has no rows"),
    ("blank.txt", b"\n \n\n", {}, "blank.txt has no rows"),
    ("empty.jsonl", b"", {}, "empty.jsonl has no rows"),
    ("header.csv", b"prompt,completion\n", {}, "header.csv has no rows"),
    ("list.json", b"[]", {}, "list.json has no rows"),
    ("page.html", b"<p>", {}, "a data file is .jsonl, .json or .csv (also with .gz), or .parquet, not '.html'"),
    ("data", b"text", {}, "not 'nothing'"),
    ("latin.txt", b"fine\nna\xefve\n", {}, "latin.txt, line 2: byte 0xef is not UTF-8"),
    ("wide.txt", "fine".encode("utf-16"), {}, "wide.txt, line 1: byte 0x00; the file is binary, or text in UTF-16"),
    ("model.jsonl", b"\x80\x02}q\x00X\x05\x00", {}, "model.jsonl, line 1: byte 0x00"),
    ("cut.jsonl", lines(PAIR, '{"prompt": "a", '), {}, "cut.jsonl, line 2: not JSON"),
    ("lists.jsonl", lines([1, 2]), {}, "lists.jsonl, line 1: a list, expected an object"),
    ("object.json", b'{"text": "a"}', {}, "object.json holds a dict, expected a list of objects"),
    ("names.jsonl", lines({"question": "a", "answer": "b"}), {},
     "line 1 has 'answer', 'question'; expected \"text\", or \"prompt\" and \"completion\", or \"messages\""),
    ("names.csv", b"Question,Answer (final)\n" + b'"a\n\nb",c\n' * 3, {},
     "names.csv, line 1 has 'Answer (final)', 'Question'; expected"),
    ("half.csv", b'prompt,reply\n"a\nb",c\n', {}, "half.csv, line 1: no column 'completion'; there are 'prompt', 'reply'"),
    ("semicolons.csv", b"prompt;completion\na, b;c\n", {},
     "semicolons.csv, line 1: the header is 'prompt;completion': the file seems to be separated by semicolons"),
    ("quoted.csv", b'"prompt";"completion"\n"a";"b"\n', {}, "seems to be separated by semicolons"),
    ("tabs.csv", b"prompt\tcompletion\na\tb\n", {}, "seems to be separated by tabs"),
    ("tabs.tsv", b"prompt\tcompletion\na\tb\n", {}, "not '.tsv'"),
    ("share.jsonl", lines({"conversations": [{"from": "human", "value": "a"}]}), {}, "line 1 has 'conversations'; expected"),
    ("shared.jsonl", lines({"messages": [{"from": "human", "value": "a"}]}), {}, "message 1 is {'from': 'human'"),
    ("half.jsonl", lines({"prompt": "a", "reply": "b"}), {}, "no column 'completion'; there are 'prompt', 'reply'"),
    ("mapped.csv", b"question,answer\na,b\n", {"prompt": "question", "completion": "reply"},
     "no column 'reply'; there are 'answer', 'question'"),
    ("strange.jsonl", lines(PAIR), {"promt": "prompt"}, "unknown column 'promt'; did you mean 'prompt'"),
    ("plain.txt", b"some text", {"text": "body"}, "plain.txt is plain text and has no columns"),
    ("both.jsonl", lines(PAIR), {"text": "prompt", "completion": "completion"}, "both.jsonl: the columns text, completion are named, which are of two kinds"),
    ("body.jsonl", lines({"body": "a"}), {"text": "body", "prompt": "body"}, "body.jsonl: the columns text, prompt are named, which are of two kinds"),
    ("mixed.jsonl", lines(PAIR, {"text": "c"}), {}, "line 2 has 'text', and the rows before it 'completion', 'prompt'"),
    ("null.jsonl", lines({"prompt": "a", "completion": None}), {}, 'line 1: "completion" is None, expected a text'),
    ("number.jsonl", lines({"text": 3}), {}, 'line 1: "text" is 3, expected a text'),
    ("blank.jsonl", lines({"text": "  "}), {}, "line 1: \"text\" is '  ', expected a text"),
    ("cells.csv", b"prompt,completion\na,b\nc\n", {}, "cells.csv, line 3: 1 cells, the header has 2"),
    ("quotes.csv", b'prompt,completion\n"a" b,c\n', {}, "quotes.csv, line 2: "),
    ("torn.parquet", b"PAR1 and then nothing", {}, "torn.parquet is no intact parquet file"),
    ("torn.jsonl.gz", b"{}", {}, "torn.jsonl.gz is no intact gzip file"),
    ("word.jsonl", lines({"messages": "hello"}), {}, '"messages" is a text that is not JSON'),
    ("deep.jsonl", lines({"messages": "[" * 200_000}), {}, '"messages" is a text that is not JSON'),
    ("half.csv", b'messages\n"[{""role"": ""user"", ""content"": ""\\ud83d""}]"\n', {}, "half.csv, line 2: \\ud83d is half of a character"),
    ("half.txt.jsonl", b'{"text": "broken emoji \\ud83d here"}\n', {}, "line 1: \\ud83d is half of a character"),
    ("twice.csv", b"text,text\na,b\n", {}, "twice.csv, line 1: two columns are called 'text'"),
    ("none.jsonl", lines({"messages": []}), {}, '"messages" is [], expected a list of messages'),
    ("roles.jsonl", lines({"messages": [{"role": "human", "content": "a"}]}), {}, "message 1 has unknown role 'human'"),
    ("keys.jsonl", lines({"messages": [{"from": "user"}]}), {}, "message 1 is {'from': 'user'}, expected \"role\" and"),
    ("silent.jsonl", lines({"messages": CONVERSATION[:2]}), {}, "no message has the role 'assistant'"),
    ("alone.jsonl", lines({"messages": CONVERSATION[2:3]}), {}, "the reply is the first message"),
    ("void.jsonl", lines({"messages": [{"role": "user", "content": ""}]}), {}, "message 1: \"content\" is ''"),
    ("few.jsonl", lines(PAIR, {"prompt": "c", "completion": "d"}), {}, "2 different rows give"),
    ("same.jsonl", lines(*[PAIR] * 50), {}, "1 different rows (49 duplicates were left out) give"),
    ("ids.jsonl", lines({"text": "a", "id": 1}, {"text": "b", "id": 1}), {}, "have the same id '1'"),
    ("cluster.jsonl", lines({"text": "a", "cluster": ["x"]}), {}, "\"cluster\" is ['x'], expected a text"),
]


@pytest.mark.parametrize(("text", "problem"), [
    ("\n".join(f"line {number} of a story that goes on" for number in range(2_000)), "has no blank line and no <|endoftext|>: it is one document, of "),
    ("\n\n".join("\n".join(f"line {number} of story {story}" for number in range(900)) for story in range(2)), "rows are of only 2 documents"),
    ("\n".join(f"line {number} of a story that goes on" for number in range(2_000)) + "\n\nThe end.", "has few blank lines: it is one document"),
])
def test_a_text_of_few_documents_is_told_as_that(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        inspect(str(tmp_path / "long.txt"), None)
    assert problem in caught.value.problem and "separate documents by blank lines" in caught.value.mend


def test_a_few_clusters_are_told_as_that(tmp_path: Path) -> None:
    rows = [{**row, "cluster": f"c{number % 2}"} for number, row in enumerate(ROWS)]
    with pytest.raises(DataError, match="60 rows are of only 2 documents or clusters"):
        inspect(write(tmp_path / "rows.jsonl", rows), None)


@pytest.mark.parametrize(("name", "data", "columns", "message"), MALFORMED, ids=[row[0] for row in MALFORMED])
def test_malformed(name: str, data: bytes, columns: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        inspect(str(path), None, columns)
    assert message in caught.value.problem and caught.value.mend
    assert "\n" not in caught.value.problem


@pytest.mark.parametrize(("name", "data", "mend"), [
    ("tabs.tsv", b"prompt\tcompletion\na\tb\n", "save it as .csv, separated by commas"),
    ("semicolons.csv", b"prompt;completion\na;b\n", "save it as CSV separated by commas"),
    ("share.jsonl", lines({"conversations": [{"from": "human", "value": "a"}]}), '"conversations" as "messages"'),
    ("shared.jsonl", lines({"messages": [{"from": "human", "value": "a"}]}), 'human: user, gpt: assistant')])
def test_formats_of_others_have_a_mend_of_their_own(name: str, data: bytes, mend: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        inspect(str(tmp_path / name), None)
    assert mend in caught.value.mend


@pytest.mark.parametrize(("files", "problem", "mend"), [
    (["config.json", "generation_config.json", "tokenizer.json"], "is a folder that holds a model", "--model"),
    (["README.txt", "b.csv.gz", "a.jsonl"], "is a folder", "a.jsonl,"),
    (["notes.md"], "is a folder", "the folder holds none that ends in one of .jsonl")])
def test_a_folder_is_no_data(files: list[str], problem: str, mend: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in files:
        (tmp_path / "folder" / name).write_text("{}")
    with pytest.raises(DataError) as caught:
        task_for(str(tmp_path / "folder"))
    assert problem in caught.value.problem and mend in caught.value.mend and "README" not in caught.value.mend


def test_a_file_that_is_not_there_is_not_only_looked_for_on_the_hub(hub: LoopbackHub) -> None:
    for name in ("data/missing.tsv", "data/missing.md", "data/missing.txt.gz", "owner/name"):
        with pytest.raises(DataError, match=f"^there is no file {name} here, and dataset {name} is not on the hub"):
            task_for(name)
    with pytest.raises(DataError, match="^dataset owner/name"):
        task_for("owner/name@main")


def test_a_task_of_another_kind_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1 has 'completion', 'prompt', expected 'text'") as caught:
        Text(path=write(tmp_path / "a.csv", ROWS)).load()
    assert caught.value.mend == "a task of kind prompt-completion reads it"


def test_two_texts_line_by_line(tmp_path: Path) -> None:
    """What cuts a long prompt never cuts the line break; blank lines in both are left out."""
    (tmp_path / "a.java").write_text("int a;\r\nint b;\n\nint c;\n")
    (tmp_path / "a.cs").write_text("var a;\nvar b;\n\nvar c;")
    task = task_for(f"{tmp_path / 'a.java'},{tmp_path / 'a.cs'}")
    assert isinstance(task, PromptCompletion)
    rows = {row.fields["prompt"]: row for row in task.load().rows}
    assert {prompt: row.fields["completion"] for prompt, row in rows.items()} == {
        "int a;": "var a;", "int b;": "var b;", "int c;": "var c;"}
    segments = task.render(rows["int b;"])
    assert [(part.text, part.cuttable, part.loss) for part in segments] == [
        ("int b;", True, False), ("\n", False, False), ("var b;", False, True)]
    assert rows["int c;"].source == f"{tmp_path / 'a.java'} and a.cs, line 4"


@pytest.mark.parametrize(("first", "second", "message"), [
    ("a\nb\n", "c\n", "second.cs ends before line 2 of "), ("a\n", "b\nc\n", "first.java ends before line 2 of "),
    ("a\n \n", "b\nc\n", "line 2: \"prompt\" is ' ', expected a text"), ("a\n", "\n", "line 1: \"completion\" is ''")])
def test_two_texts_that_do_not_belong_together(first: str, second: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "first.java").write_text(first)
    (tmp_path / "second.cs").write_text(second)
    with pytest.raises(DataError) as caught:
        inspect(f"{tmp_path / 'first.java'},{tmp_path / 'second.cs'}", None)
    assert message in caught.value.problem and caught.value.mend


def test_several_files_of_one_kind_and_names_with_a_comma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = write(tmp_path / "one.jsonl", ROWS[:30]), write(tmp_path / "two.csv", ROWS[30:])
    assert len(task_for(f"{one}, {two}").load().rows) == 60
    odd = write(tmp_path / "with,comma.jsonl", ROWS)
    assert len(task_for(odd).load().rows) == 60
    with pytest.raises(DataError, match="three.jsonl does not exist"):
        task_for(f"{one},{tmp_path / 'three.jsonl'}")
    many = ",".join(f"{tmp_path}/part-{number:02}.jsonl" for number in range(60))  # no path is as long
    with pytest.raises(DataError, match="part-00.jsonl does not exist"):
        task_for(many)
    assert len(task_for(f"{one},").load().rows) == 30
    (tmp_path / "Doe, John").mkdir()
    inside = [write(tmp_path / "Doe, John" / name, ROWS) for name in ("a.jsonl", "b.jsonl")]
    monkeypatch.chdir(tmp_path / "Doe, John")
    with pytest.raises(DataError, match="has a comma in its path"):
        task_for("a.jsonl,b.jsonl")
    assert len(task_for(inside[0]).load().rows) == 60
    task = PromptCompletion(path="one.jsonl,two.csv").located(tmp_path)
    assert task.path == f"{one},{two}" and task.source_digest() != PromptCompletion(path=one).source_digest()


def test_rows_that_say_nearly_the_same_stay_in_one_split(tmp_path: Path) -> None:
    rows = []
    for number in range(80):
        words = [f"word{(number * 37 + place * place * 11) % 997}" for place in range(40)]
        rows += [{"text": " ".join(words)}, {"text": " ".join([*words[:39], "changed"])}]
    examples = Text(path=write(tmp_path / "a.jsonl", rows)).load()
    clusters: dict[str, set[str]] = {}
    for row in examples.rows:
        clusters.setdefault(row.fields["text"].rpartition(" ")[0], set()).add(row.cluster)
    assert len(clusters) == 80 and all(len(names) == 1 for names in clusters.values())


def inspected(path: str) -> Inspected:
    task = task_for(path)
    return Inspected(task, task.load(), 1, 1, 1.0)


def not_measured(task: Any, examples: Examples, reference: str, tokenizer: Any) -> Inspected:
    return Inspected(task, examples, 1, 1, 1.0)


def test_what_is_in_both_files_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(f"w{(number * 31 + place * place * 7) % 991}" for place in range(30)) for number in range(90)]
    learn = inspected(write(tmp_path / "learn.jsonl", [{"text": text} for text in texts[:40]]))
    keep = inspected(write(tmp_path / "keep.jsonl", [{"text": text} for text in texts[35:]]))
    monkeypatch.setattr("finetrial.compare.inspect._measured", not_measured)
    left = apart(keep, learn, tmp_path / "run", None)
    assert left.num_shared == 5
    assert {row.fields["text"] for row in left.examples.rows} == set(texts[40:])
    before = {row.id: (row.cluster, row.split) for row in keep.examples.rows}
    assert all((row.cluster, row.split) == before[row.id] for row in left.examples.rows) and left.origin == ""
    assert apart(left, learn, tmp_path / "run", None) is left
    with pytest.raises(DataError, match="40 of 40 rows of --keep are in --learn too"):
        apart(learn, learn, tmp_path / "run", None)


def test_a_family_in_both_files_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large family not every pair is told: a row is left out that one more connects with what is learned."""
    others = [" ".join(f"w{(number * 31 + place * place * 7) % 991}" for place in range(30)) for number in range(700)]
    family = [" ".join(f"f{place}" if place != 20 else f"x{number}" for place in range(40)) for number in range(160)]
    learn = inspected(write(tmp_path / "learn.jsonl", [{"text": text} for text in [*others[:350], *family[:110]]]))
    keep = inspected(write(tmp_path / "keep.jsonl", [{"text": text} for text in [*others[350:], *family[110:]]]))
    monkeypatch.setattr("finetrial.compare.inspect._measured", not_measured)
    left = apart(keep, learn, tmp_path / "run", None)
    assert left.num_shared == 50 and {row.fields["text"] for row in left.examples.rows} == set(others[350:])


def test_rows_whose_completion_is_too_long_are_not_counted(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """Of all splits, and of all their rows: what a comparison uses of them is no limit."""
    def is_long(number: int) -> bool:
        return number % 4 == 0

    rows = [{"prompt": f"w{number % 83} w{number // 83}", "completion": " ".join(["w5"] * (60 if is_long(number) else 4)),
             "cluster": str(number), "id": str(number)} for number in range(4000)]
    found = inspect(write(tmp_path / "pairs.jsonl", rows), tiny_tokenizer)
    counted = with_usable(found, tiny_tokenizer, 32, "decoder")
    assert found.num_unusable == 0 and counted.num_unusable == 1000 and sum(counted.rows.values()) == 3000
    assert counted.rows == {split: sum(not is_long(int(row.id)) for row in found.examples.split(split)) for split in ("train", "val", "test")}
    assert counted.rows["val"] > 200 and found.mean_tokens > 20 and counted.mean_tokens == 7  # two, four, and the end
    use = TaskUse(name="learn", task=found.task, num_val=60, num_test=200)
    text = data_text(counted, use, 32)
    assert f"{counted.rows['train']:,} rows to train on, 60 of {counted.rows['val']} to validate, 200 of {counted.rows['test']} to test" in text
    assert text.endswith("left out: 1,000 whose answer does not fit in 32 tokens") and "left out" not in data_text(found, use, 32)
    with pytest.raises(DataError, match=r"of the rows for train 0 fit into 3 tokens, and at least 3 are needed \(3\d\d\d do not fit\)"):
        with_usable(found, tiny_tokenizer, 3, "decoder")


def test_what_is_kept_stays_a_conversation(tmp_path: Path, tiny_tokenizer: Any) -> None:
    def talk(number: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": f"w{number % 90} w{number // 90} w{number % 7}"},
                             {"role": "assistant", "content": f"w{number % 80}"},
                             {"role": "user", "content": f"w{number % 70} w3"}, {"role": "assistant", "content": f"w{number % 60} w2"}]}

    keep = inspect(write(tmp_path / "keep.jsonl", [talk(number) for number in range(200)]), tiny_tokenizer)
    learn = inspect(write(tmp_path / "learn.jsonl", [talk(number) for number in range(190, 400)]), tiny_tokenizer)
    left = apart(keep, learn, tmp_path, tiny_tokenizer)
    before = {row.id: dict(row.fields) for row in keep.examples.rows}
    assert left.num_shared and all(dict(row.fields) == before[row.id] for row in left.examples.rows)
