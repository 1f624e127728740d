"""docs/metrics.md: a section for every metric that says what the code says, and examples that are true."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from finetrial import catalog

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
SECTIONS = {name: text for name, text in re.findall(r"^## ([\w-]+)\n(.*?)(?=^##? |\Z)", PAGE, re.MULTILINE | re.DOTALL)}
PACKAGES = ("sacrebleu", "rouge_score", "nltk", "tree-sitter", "tree-sitter-python", "tree-sitter-javascript")


def test_every_metric_has_a_section_and_no_section_is_left_over() -> None:
    assert set(SECTIONS) == set(catalog.names("scorer"))


@pytest.mark.parametrize("name", catalog.names("scorer"))
def test_a_section_opens_with_range_direction_and_version(name: str) -> None:
    made = catalog.find("scorer", name)()
    low, high = sorted((made.best, made.worst))
    scale = f"{low:g} upwards" if math.isinf(high) else f"{low:g} to {high:g}"
    better = "higher" if made.higher_is_better else "lower"
    assert SECTIONS[name].strip().startswith(f"{scale}, {better} is better · version {made.version}")


def test_the_versions_of_libraries_are_those_that_are_locked() -> None:
    lock = (Path(__file__).parents[3] / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w-]+)==(\S+)$", lock, re.MULTILINE))
    named = re.findall(r"\b(" + "|".join(sorted(PACKAGES, key=len, reverse=True)) + r") (\d[\d.]*\d)", PAGE)
    assert {package for package, _ in named} == set(PACKAGES)
    assert all(locked[package] == version for package, version in named)
    assert set(re.findall(r"version:([\d.]+)", PAGE)) == {locked["sacrebleu"]}


def test_the_signatures_are_those_of_sacrebleu() -> None:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    for metric, section in ((BLEU(), "bleu"), (BLEU(tokenize="none"), "bleu"), (CHRF(), "chrf")):
        metric.corpus_score(["a"], [["a"]])  # the number of references is known from then on
        signature = metric.get_signature().format()
        assert f"`{signature}`" in SECTIONS[section].replace("\n", " ")


def examples() -> list[tuple[str, dict[str, str]]]:
    found = []
    for name, text in SECTIONS.items():
        for header, body in re.findall(r"^\|(.*\| value) \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
            names = [cell.strip() for cell in header.split("|")]
            for line in body.splitlines():
                found.append((name, dict(zip(names, re.split(r" \| ", line.strip("| ")), strict=True))))
    return found


def cell(text: str) -> Any:
    if text.startswith("`"):
        return text.strip("`").replace("\\n", "\n")
    return text == "yes" if text in ("yes", "no") else int(text)


@pytest.mark.parametrize("name, row", examples(), ids=lambda part: part if isinstance(part, str) else "-")
def test_an_example_is_true(name: str, row: dict[str, str]) -> None:
    made = catalog.find("scorer", name)()
    columns = {column: [cell(text)] for column, text in row.items() if column != "value"}
    assert float(made.aggregate(made.statistics(columns)[0])) == pytest.approx(float(row["value"]), abs=5e-4)


def test_every_metric_of_outputs_has_examples() -> None:
    outputs = {name for name in catalog.names("scorer") if catalog.find("scorer", name).needs == "outputs"}
    assert {name for name, _ in examples()} == outputs
