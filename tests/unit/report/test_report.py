"""The files: complete, the same every time, readable without a network, without torch, and from any partial run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetrial.errors import UserError
from finetrial.report import analysis_markdown, build, report_html, view

FRESH = """
import sys
for name in ("torch", "transformers", "peft", "accelerate"):
    sys.modules[name] = None
from pathlib import Path
from finetrial.records.results import Results
from finetrial.report import build
from finetrial.spec import Study
folder = Path(sys.argv[1])
study = Study.model_validate_json((folder / "study.json").read_text())
build(study, Results.model_validate_json((folder / "results.json").read_text()), folder)
"""


@pytest.fixture(scope="module")
def folder(study, results, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("report")
    build(study, results, made)
    return made


@pytest.fixture(scope="module")
def page(folder, parse_page):
    return parse_page((folder / "report.html").read_text(encoding="utf-8"))


def test_everything_is_written(folder):
    figures = {"plane", "rates", "curves", "forest", "efficiency"}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in figures for suffix in ("svg", "png", "pdf")}
    assert (folder / "report.html").stat().st_size < 2_000_000


def test_another_process_without_torch_writes_the_same_bytes(study, results, folder, tmp_path):
    (tmp_path / "study.json").write_text(study.model_dump_json(), encoding="utf-8")
    (tmp_path / "results.json").write_text(results.model_dump_json(), encoding="utf-8")
    source = Path(__file__).parents[3] / "src"
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path)], check=True,
                   env={**os.environ, "PYTHONPATH": str(source), "PYTHONHASHSEED": "77"})
    compared = ["report.html", "analysis.md", *(f"figures/{path.name}" for path in (folder / "figures").iterdir()
                                                if path.suffix != ".pdf")]
    assert len(compared) == 12
    for name in compared:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_tags_balance_and_sections_come_in_order(page):
    assert page.open == []
    ids = [value for tag, name, value in page.attributes if tag == "section" and name == "id"]
    assert ids == ["answer", "plane", "scores", "rates", "curves", "forest", "cost", "tuning", "threats", "provenance",
                   "terms"]
    anchors = {value[1:] for tag, name, value in page.attributes if name == "href" and value.startswith("#")}
    assert anchors <= set(ids)


def test_the_top_of_the_page_gives_question_answer_choice_and_trust(page, study, results):
    order = [study.question, "3 supported", "SUPPORTED", "H1", "Which arm to choose LoRA r=8 (all linear)",
             "How far to trust this", "Positive control: seen", "Learning and forgetting"]
    places = [page.text.index(text) for text in order]
    assert places == sorted(places)


def test_nothing_refers_to_a_server(page, folder):
    for _, name, value in page.attributes:
        if name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            assert re.match(r"(#|figures/|results\.json$|study\.yaml$)", value), value
    styles_and_specs = [text for text in page.scripts if len(text) < 500_000]
    assert len(styles_and_specs) >= 3
    for text in styles_and_specs:
        assert not re.search(r"https?:|url\(|@import", text)
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", (folder / "figures/plane.svg").read_text(encoding="utf-8"))


def test_pictures_have_words(page):
    images = [value for _, name, value in page.attributes if (name, value) == ("role", "img")]
    assert len(images) == 5
    labels = [value for _, name, value in page.attributes if name == "aria-label"]
    assert any(label.startswith("Scatter plot of forgetting against learning. ") for label in labels)


def test_markdown_says_the_same_as_the_page(folder, page, study, results):
    text = (folder / "analysis.md").read_text(encoding="utf-8").replace("\\", "")
    for card in view(study, results).cards:
        assert f"### {card.name}{'' if card.primary else ' (secondary)'}: {card.answer.verdict}" in text
        for answer in (card.answer, *card.parts):
            assert answer.sentence in text and answer.sentence in page.text
    assert "![" in text and "figures/plane.svg" in text


def test_markdown_tables_are_even(folder):
    lines = (folder / "analysis.md").read_text(encoding="utf-8").splitlines()
    widths, block = [], []
    for line in [*lines, ""]:
        if line.startswith("|"):
            block.append(len(re.findall(r"(?<!\\)\|", line)))
        elif block:
            widths.append(set(block))
            block = []
    assert widths and all(len(width) == 1 for width in widths)


def test_why_not_the_others_is_a_list(study, results):
    chosen = results.recommendation.model_copy(update={"others": ("Not <b>full</b>: it trains more.", "Not r=32: it is behind.")})
    told = results.model_copy(update={"recommendation": chosen})
    page = report_html(study, told)
    assert "Why not the others" in page and "<li>Not &lt;b&gt;full&lt;/b&gt;: it trains more.</li>" in page
    assert "- Not r=32: it is behind." in analysis_markdown(study, told)


def test_hostile_text_stays_text(new_study, new_results, parse_page):
    attack = "</script><img src=x onerror=alert(1)> | `code` *bold*"
    study = new_study(question=attack)
    results = new_results(arms={"base": "base", "full": attack})
    page = parse_page(report_html(study, results))
    assert not [tag for tag, _, _ in page.attributes if tag == "img"]
    assert attack in page.text
    assert "<img" not in analysis_markdown(study, results).replace("\\<", "")


@pytest.mark.parametrize("status", ["running", "partial"])
def test_a_report_of_nothing_yet_is_a_report(new_study, new_results, parse_page, status):
    empty = new_results(status=status, scores=(), measures=(), costs=(), findings=(), tuning=(), audit=(),
                        recommendation=None, provenance={}, assay={})
    page = parse_page(report_html(new_study(), empty))
    assert page.open == [] and f"The run is {status}" in page.text
    assert "NOT MEASURED" in page.text and "No arm can be recommended" in page.text
    assert "Full fine-tuning: 15 of 15 cells are missing so far." in page.text


def test_several_bases_and_sequences_are_told_apart(new_study, new_results, results, parse_page):
    study = new_study(bases=("tiny-gpt", "tiny-t5"), hypotheses=())
    twice = tuple(row.model_copy(update={"base": base}) for base in ("tiny-gpt", "tiny-t5") for row in results.scores)
    page = parse_page(report_html(study, new_results(scores=twice, findings=())))
    assert "Test scores (tiny-gpt)" in page.text and "Test scores (tiny-t5)" in page.text


def test_a_folder_that_cannot_be_written_is_a_clear_error(study, results, tmp_path):
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(UserError, match="the report cannot be written to"):
        build(study, results, tmp_path / "taken", figures=False)


def test_figures_can_be_left_out(study, results, tmp_path):
    written = build(study, results, tmp_path, figures=False)
    assert [path.name for path in written] == ["report.html", "analysis.md"]
    assert "figures/" not in (tmp_path / "report.html").read_text(encoding="utf-8").partition("<script")[0]
