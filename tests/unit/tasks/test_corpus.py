"""The corpus as a whole: made from small sources here, and checked on the mined one where that exists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetrial.cache import cache_root
from finetrial.tasks.sources import corpus
from finetrial.tasks.sources.corpus import TABLES, build, mine
from finetrial.tasks.sources.wheels import SourceFile


def _function(name: str, description: str, number: int) -> str:
    return (f'def {name}(left, right):\n    """{description}"""\n    first = left * {number} + right\n'
            f"    second = combine_{number}(first, left)\n    return first - second\n\n\n")


def _files() -> list[SourceFile]:
    own = [SourceFile("pack", f"pack/m{number:03d}.py", _function(
        f"f{number}", f"Compute value {number} of item{number} from both", number).encode()) for number in range(110)]
    shared = _function("shared", "Combine both of these numbers in one", 777).encode()
    lines = "".join(f"    right = left * {number} + right ** {number + 1}\n" for number in range(20))
    shared = shared.replace(b"    return", lines.encode() + b"    return")
    near = shared.replace(b"first - second", b"first + second").replace(b"Combine", b"Gather")
    return [*own, SourceFile("pack", "pack/x.py", shared), SourceFile("zoo", "zoo/y.py", own[3].data + shared),
            SourceFile("zoo", "zoo/z.py", _function("g", "Compute value 5 of item5 from both", 900).encode()),
            SourceFile("zoo", "zoo/bad.py", b"def f(:\n"), SourceFile("zoo", "zoo/near.py", near)]


@pytest.fixture(scope="module")
def built() -> tuple[dict, dict]:
    return build(mine(_files(), processes=1))


def test_files_that_share_are_one_cluster(built: tuple[dict, dict]) -> None:
    cluster = {row["path"]: row["cluster"] for row in built[0]["files"]}
    assert cluster["zoo/y.py"] == cluster["pack/x.py"] == cluster["pack/m003.py"]  # functions
    assert cluster["zoo/near.py"] == cluster["pack/x.py"]  # near-duplicates
    assert cluster["zoo/z.py"] == cluster["pack/m005.py"]  # a description
    assert len(set(cluster.values())) >= 109


def test_rows_carry_the_split_of_their_cluster(built: tuple[dict, dict]) -> None:
    splits: dict[str, set[str]] = {}
    for table in TABLES:
        for row in built[0][table]:
            splits.setdefault(row["cluster"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_duplicates_are_counted(built: tuple[dict, dict]) -> None:
    tables, report = built
    assert report["dropped"]["exact duplicate"] == 2
    assert report["dropped"]["file with syntax error"] == 1
    assert report["dropped"]["near-duplicate"] == 1
    names = [row["name"] for row in tables["functions"]]
    assert names.count("shared") == 1
    kept = len(names) + sum(report["dropped"][rule] for rule in (
        "exact duplicate", "near-duplicate", "short description in two splits"))
    assert kept == 110 + 1 + 2 + 1 + 1


def test_short_descriptions_do_not_cross_splits() -> None:
    files = [SourceFile("p", f"p/m{number}.py", _function(f"f{number}", "Give the value", number + 10).replace(
        "combine", f"mix{number}").encode()) for number in range(120)]
    tables, report = build(mine(files, processes=1))
    assert {row["split"] for row in tables["files"]} >= {"pretrain", "train"}
    assert tables["functions"] == []
    assert report["dropped"]["short description in two splits"] + report["dropped"]["near-duplicate"] == 120


def test_two_processes_give_the_same_as_one() -> None:
    one, two = mine(_files(), processes=1), mine(_files(), processes=2)
    assert [(m.path, m.functions, m.links, m.passages, m.prose, m.signatures.tolist()) for m in one] == [
        (m.path, m.functions, m.links, m.passages, m.prose, m.signatures.tolist()) for m in two]


def test_order_of_files_changes_no_cluster(built: tuple[dict, dict]) -> None:
    tables, _ = build(mine(_files()[::-1], processes=1))
    expected = {row["path"]: (row["cluster"], row["split"]) for row in built[0]["files"]}
    assert {row["path"]: (row["cluster"], row["split"]) for row in tables["files"]} == expected


@pytest.fixture
def small_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`embedded_corpus` made from the small files, in a cache of its own; returns its folder."""
    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(corpus, "source_files", lambda: iter(_files()[:20]))
    corpus.embedded_corpus.cache_clear()
    yield tmp_path / f"corpus-{corpus.corpus_digest()}"
    corpus.embedded_corpus.cache_clear()


def test_kept_on_disk_and_read_again(small_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = corpus.embedded_corpus()
    rows = first.rows("functions")
    assert len(rows) == 20 and first.folder == small_corpus
    assert {row["split"] for row in first.rows("functions", ["train"])} <= {"train"}
    corpus.embedded_corpus.cache_clear()
    monkeypatch.setattr(corpus, "source_files", None)  # not mined again
    assert corpus.embedded_corpus().rows("functions") == rows
    assert corpus.embedded_corpus().report == first.report
    assert sorted(path.name for path in small_corpus.parent.iterdir()) == [small_corpus.name,
                                                                           small_corpus.name + ".lock"]


@pytest.mark.parametrize("name", ["functions.parquet", "corpus.json"])
def test_damage_is_found_and_mended(name: str, small_corpus: Path) -> None:
    rows = corpus.embedded_corpus().rows("functions")
    (small_corpus / name).write_bytes((small_corpus / name).read_bytes()[:-9])
    corpus.embedded_corpus.cache_clear()
    assert corpus.embedded_corpus().rows("functions") == rows
    json.loads((small_corpus / "corpus.json").read_text())


MINED = cache_root() / f"corpus-{corpus.corpus_digest()}" / "corpus.json"


@pytest.mark.skipif(not MINED.exists(), reason="the embedded corpus is not mined yet: finetrial data does it")
class TestMinedCorpus:
    """Promises about the real corpus."""

    def test_no_prompt_crosses_splits(self) -> None:
        mined = corpus.embedded_corpus()
        for table, column in (("functions", "code"), ("functions", "description"), ("documents", "long_description")):
            split_of: dict[str, str] = {}
            for row in mined.rows(table):
                text = " ".join(row[column].split()).lower()
                assert split_of.setdefault(text, row["split"]) == row["split"], (table, row["path"], row["name"])

    def test_sizes(self) -> None:
        rows = corpus.embedded_corpus().report.rows
        assert sum(rows[f"functions/{split}"] for split in corpus.SPLITS) >= 28_000
        assert sum(rows[f"documents/{split}"] for split in corpus.SPLITS) >= 12_000
        assert min(rows["functions/train"], rows["documents/train"]) >= 3_000

    def test_is_what_the_bundled_base_was_trained_by(self) -> None:
        """tiny-gpt saw the `pretrain` split of exactly this corpus: another digest means training it again."""
        assert corpus.corpus_digest() == "a777a6f4d99a4c0751856da80aef2e98"
