"""pydoc-summary, pycode and jscode over small corpora, and on the mined ones where these exist."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from finetrial.cache import cache_root
from finetrial.errors import MissingPackage
from finetrial.spec.model import plugin_identity
from finetrial.tasks import jscode, pycode, pydoc_summary
from finetrial.tasks.base import Example, Segment, Task
from finetrial.tasks.cnn_dailymail import CnnDailymail
from finetrial.tasks.jscode import Jscode
from finetrial.tasks.pieces import at_margin, lead_floors, stable_draw
from finetrial.tasks.pycode import Pycode, parts
from finetrial.tasks.pydoc_summary import PydocSummary
from finetrial.tasks.sources import corpus, javascript_corpus
from finetrial.tasks.sources.wheels import SourceFile

TOLD = "It is told here in more than twenty words, since a shorter text would not count as a long description of anything."


def _python(number: int) -> bytes:
    filler = "".join(f"    y = y + {number} * {line}\n" for line in range(number % 4))
    return (f'def f{number}(x,\n       z={number}):\n    """Compute thing number {number} of all.\n\n'
            f"    Thing {number} is done in another way. {TOLD} So it is number {number}.\n    \"\"\"  # noqa\n"
            f"    y = x * {number} + z\n{filler}    return g{number}(y)\n").encode()


def _javascript(number: int) -> bytes:
    return (f"/**\n * Compute thing number {number} of all.\n * @param {{number}} x\n */\nfunction f{number}(x) {{\n"
            f"    const y = x * {number};\n    if (y) {{\n        log{number}(y);\n    }}\n    return g{number}(y);\n}}\n"
            ).encode()


@pytest.fixture(scope="class")
def small_corpora(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    python = [SourceFile("pack", f"pack/m{number:03d}.py", _python(number)) for number in range(120)]
    javascript = [SourceFile("pack", f"pack/m{number:03d}.js", _javascript(number)) for number in range(120)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETRIAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(corpus, "source_files", lambda: iter(python))
        patch.setattr(corpus.mine, "__defaults__", (1,))
        patch.setattr(javascript_corpus, "javascript_files", lambda: iter(javascript))
        corpus.embedded_corpus.cache_clear()
        javascript_corpus.javascript_corpus.cache_clear()
        yield
    corpus.embedded_corpus.cache_clear()
    javascript_corpus.javascript_corpus.cache_clear()


def _shape(segments: tuple[Segment, ...]) -> str:
    """A letter for each segment: fixed, cuttable, loss."""
    return "".join("l" if segment.loss else "c" if segment.cuttable else "f" for segment in segments)


@pytest.mark.usefixtures("small_corpora")
class TestSmallCorpora:
    """The three tasks over 120 files each."""

    @pytest.mark.parametrize("task", [PydocSummary(), Pycode(), Jscode()], ids=lambda task: type(task).__name__)
    def test_what_all_promise(self, task: Task) -> None:
        examples = task.load()
        assert set(examples.report.rows) == {"train", "val", "test"} and task.generates
        assert task.load().digest == examples.digest
        assert len({row.id for row in examples.rows}) == len(examples.rows) > 20
        assert not {row.cluster for row in examples.split("train")} & {row.cluster for row in examples.split("test")}
        for row in examples.rows:
            texts = task.texts(row)
            assert texts["reference"] == task.render(row)[-1].text
            assert task.floors(row)["copy"] == texts["input"] and texts["input"].strip()
            assert all(floor.strip() for floor in task.floors(row).values())

    def test_pydoc_summary(self) -> None:
        task = PydocSummary()
        row = task.load().rows[0]
        segments = task.render(row)
        assert _shape(segments) == "fcfl"
        assert segments[0].text == pydoc_summary.INSTRUCTION and segments[2].text == pydoc_summary.CUE
        assert segments[3].text.startswith("Compute thing number")
        floors = task.floors(row)
        assert floors["lead-1"].endswith("is done in another way.") and floors["lead-3"] == floors["copy"]
        assert PydocSummary(max_summary_characters=20).load().rows == []

    def test_pydoc_summary_of_what_is_named(self) -> None:
        """The cue alone is another one, and what needs no model does not see the name."""
        plain, named = PydocSummary(), PydocSummary(named=True)
        for before, row in zip(plain.load().rows, named.load().rows, strict=True):
            assert (row.id, row.cluster, row.split) == (before.id, before.cluster, before.split)
            cue = named.render(row)[2].text
            assert cue == f"\n\nSummary of {before.source.split(' ')[1]}:\n"
            assert [part.text for part in named.render(row) if part.text != cue] == [
                part.text for part in plain.render(before) if part.text != pydoc_summary.CUE]
            assert named.floors(row) == plain.floors(before)
        assert plugin_identity(plain) == {"kind": "pydoc-summary"} and plain.load().digest != named.load().digest

    def test_pycode(self) -> None:
        task = Pycode()
        examples = task.load()
        row = examples.rows[0]
        segments = task.render(row)
        assert _shape(segments) == "fcfl" and segments[2].text == f"\n\n{row.fields['signature']}{pycode.CUE}"
        assert segments[1].text.startswith("Compute thing number") and "done in another way" in segments[1].text
        assert segments[3].text.startswith("y = x * ") and "noqa" not in segments[3].text
        assert row.fields["signature"].endswith("):") and row.fields["signature"] in task.texts(row)["input"]
        short = Pycode(max_body_characters=40).load()
        assert short.report.dropped["body too long"] == len(examples.rows) - len(short.rows) > 0

    def test_jscode(self) -> None:
        task = Jscode()
        examples = task.load()
        assert sum(examples.report.rows.values()) == 120  # nothing is kept for pretraining
        segments = task.render(examples.rows[0])
        assert _shape(segments) == "fcfl" and segments[2].text.endswith(f"(x){jscode.CUE}")
        assert "\n@param {number} x" in segments[1].text
        assert segments[3].text.startswith("const y = x") and "\n    log" in segments[3].text
        assert task.source_digest() == javascript_corpus.javascript_digest()


def test_jscode_without_the_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise javascript_corpus.PackageNotFoundError(name)

    monkeypatch.setattr(javascript_corpus, "version", absent)
    with pytest.raises(MissingPackage) as caught:
        Jscode().source_digest()
    assert "pip install tree-sitter-javascript" in caught.value.mend


def test_body_below_the_signature() -> None:
    assert parts("def f(a,\n      b):\n    x = 1\n\n    return x", "def f(a, b):") == (
        "def f(a, b):", "x = 1\n\nreturn x")
    assert parts("def f(a):\n# noqa\n  s = '''\nx'''\n  return s", "def f(a):") == (
        "def f(a):", "s = '''\nx'''\nreturn s")
    assert parts("def f(a): return 1", "def f(a):")[1] == ""


def test_a_comment_in_a_signature_swallows_nothing() -> None:
    code = "def f(  # noqa: E741\n    l,  # a list\n    mark='#',\n):  # pragma: no cover\n    return mark in l"
    head = "def f( # noqa: E741 l, # a list mark='#', ): # pragma: no cover"
    assert parts(code, head) == ("def f( l, mark='#', ):", "return mark in l")


def test_at_margin() -> None:
    assert at_margin("\n    if x:\n        y\n\n  z\n") == "if x:\n    y\n\n  z"
    assert at_margin("\tx\n\t\ty  ") == "x\n\ty"


def test_lead_floors() -> None:
    text = 'It costs 3.5 e.g. now. "Why?" he asked. (No one knows.) Then\nthe end. more.'
    floors = lead_floors(text)
    assert floors == {"copy": text, "lead-1": "It costs 3.5 e.g. now.",
                      "lead-3": 'It costs 3.5 e.g. now. "Why?" he asked. (No one knows.)'}
    assert lead_floors("One line") == {"copy": "One line", "lead-1": "One line", "lead-3": "One line"}


def test_a_title_ends_no_sentence_of_news() -> None:
    text = "(CNN) -- Dr. Jones met J. R. Smith on Feb. 3. It was in the U.S. They left. Nobody saw St. Mary. The end."
    floors = CnnDailymail(test="x.jsonl").floors(Example("i", "c", "test", {"article": text, "highlights": "h"}, "x"))
    assert floors["lead-1"] == "(CNN) -- Dr. Jones met J. R. Smith on Feb. 3."
    assert floors["lead-3"] == text.partition(" Nobody")[0] and floors["copy"] == text


PYTHON = cache_root() / f"corpus-{corpus.corpus_digest()}" / "corpus.json"
JAVASCRIPT = cache_root() / f"javascript-{javascript_corpus.javascript_digest()}" / "corpus.json"


@pytest.mark.skipif(not PYTHON.exists(), reason="the embedded corpus is not mined yet: finetrial data does it")
def test_mined_python() -> None:
    code = Pycode().load()
    assert code.report.rows["train"] >= 3_000 and code.report.rows["val"] >= 300
    for row in stable_draw(code.rows, 500):
        ast.parse(row.fields["body"])
    assert PydocSummary().load().report.rows["train"] >= 3_000


@pytest.mark.skipif(not JAVASCRIPT.exists(), reason="the JavaScript corpus is not mined yet: finetrial data does it")
def test_mined_javascript() -> None:
    from finetrial.tasks.sources.javascript_source import javascript_parser

    examples, parser = Jscode().load(), javascript_parser()
    assert examples.report.rows["train"] >= 900 and examples.report.rows["val"] >= 100
    split_of: dict[str, str] = {}
    for row in examples.rows:
        assert not parser.parse(row.fields["body"].encode()).root_node.has_error, row.source
        assert split_of.setdefault(" ".join(row.fields["comment"].split()).lower(), row.split) == row.split
