"""The report of a study of two tasks: what sequences, routing, floors, factorials and outputs add to it."""

from __future__ import annotations

import functools
import re

import altair
import pytest
from tests import sequences
from tests.sequences import CODE, DOCS, FORTH

from finetrial.analysis.analyse import analyse
from finetrial.records.results import Claim, Quote, Results
from finetrial.report import analysis_markdown, report_html
from finetrial.report.examples import CUT, example_pages, pieces
from finetrial.report.facts import Facts, Path
from finetrial.report.figures import (
    all_figures,
    distributions,
    efficiency,
    factors,
    interaction,
    matrix,
    plane,
    transfer,
)
from finetrial.report.model import view
from finetrial.report.provenance import provenance_rows
from finetrial.report.render import page_specs
from finetrial.report.score_tables import _score_column, _Shown, score_tables
from finetrial.report.tables import claims_table, cost_table, sequence_table, storage_table
from finetrial.spec.uses import Decoding, Sampling

CLAIMS = (Claim(claim="LoRA writes better JavaScript.", published=".2489 against .2147", flaw="inputs equal labels",
                as_published=Quote(value=0.031, low=0.011, high=0.051, unit="chrF", n_seeds=5),
                mended=Quote(value=0.020, low=-0.004, high=0.044, unit="chrF", n_seeds=5), worth=0.011,
                standing="does not survive"),
          Claim(claim="The layer does not forget.", standing="cannot be tested at this scale"))


@functools.cache
def facts() -> Facts:
    study, table = sequences.make_table()
    return Facts(study, analyse(study, table).model_copy(update={"claims": CLAIMS}))


@functools.cache
def grid() -> Facts:
    study, table = sequences.make_grid()
    return Facts(study, analyse(study, table))


def forth() -> Path:
    return next(path for path in facts().paths if path.sequence == FORTH)


def row(table, label: str, note: str = ""):
    return next(one for one in table.rows if one.cells[0].text == label and note in one.cells[0].note)


def test_every_section_applies_and_is_valid() -> None:
    made = {figure.name: figure for figure in all_figures(facts())}
    assert list(made) == ["plane", "interaction", "matrix", "transfer", "distributions", "rates", "curves", "forest",
                          "efficiency"]
    for figure in (*made.values(), *all_figures(grid())):
        altair.LayerChart.from_dict(page_specs(figure)[0], validate=True)


def test_the_spread_of_a_metric_of_yes_and_no_is_not_drawn() -> None:
    """Its quantiles are 0 and 1 whatever its mean is."""
    ones = [0.0] * 15 + [0.4] + [1.0] * 5
    yes_or_no = [row.model_copy(update={"metric": "exact-match", "quantiles": tuple(ones), "num_distinct": 2})
                 for row in facts().results.distributions if row.metric == "chrf"]
    drawn = distributions.figure(Facts(facts().study, facts().results.model_copy(update={
        "distributions": (*facts().results.distributions, *yes_or_no)})))
    before = distributions.figure(facts())
    assert drawn and before and drawn.panels == before.panels
    assert "the mean says it all: exact match on code." in drawn.caption and "Not drawn" not in before.caption
    alone = facts().results.model_copy(update={"distributions": tuple(yes_or_no)})
    assert distributions.figure(Facts(facts().study, alone)) is None


def test_what_does_not_apply_is_left_out(study, results) -> None:
    simple = Facts(study, results)
    assert not {"matrix", "transfer", "interaction", "factors", "distributions"} & {f.name for f in all_figures(simple)}
    shown = view(study, results)
    assert shown.sequences == () and shown.examples == () and shown.claims is None


def test_floors_and_the_base_stand_beside_every_score() -> None:
    tables = score_tables(facts())
    assert [table.is_folded for table in tables] == [False, False, True, True, True, True]
    first = tables[0]
    assert [one.cells[0].text for one in first.rows[:3]] == [
        "untouched base", "the input copied (floor)", "first sentence of the input (floor)"]
    code = next(place for place, column in enumerate(first.columns) if column.title == CODE)
    assert first.rows[1].cells[code].kind == "number" and first.rows[1].cells[code].more == "60 items"
    assert first.rows[1].cells[1].text == "\N{EN DASH}"
    assert row(first, "LoRA r=8", "ORACLE").cells[1].text != row(first, "LoRA r=8", "after phase 2: code").cells[1].text
    assert not any("ORACLE" in one.cells[0].note for one in first.rows if one.cells[0].text == "full fine-tuning")
    assert tables[2].caption.startswith("Test scores, control (code alone)") and len(tables[2].rows) == 7


def test_a_ratio_of_lengths_has_no_better_direction() -> None:
    column = _score_column(facts(), _Shown(CODE, "length-ratio"))
    assert "1 is right" in column.note and "better" not in column.note


def test_efficiency_draws_the_floors() -> None:
    rows = efficiency.figure(facts()).panels[0].spec["data"]["values"]
    assert [one["kind"] for one in rows if "kind" in one and one["kind"] != "arm"] == ["base", "floor", "floor"]
    assert "the input copied (floor)" in efficiency.figure(facts()).caption


def test_the_plane_measures_an_earlier_task_from_where_it_was_learned() -> None:
    assert plane.forgettable(facts(), forth()) == ["old", DOCS]
    rows = plane.plane_rows(facts(), forth(), DOCS)
    mark = next(one for one in rows if one["kind"] == "mark" and one["name"] == "full")
    chosen = next(one for one in rows if one["kind"] == "mean" and one["name"] == "full" and one["at"] == "3e-4")
    assert mark["y"] == pytest.approx(chosen["y"], abs=0.01) == pytest.approx(sequences.FORGETS["full"], abs=0.03)
    assert not any(one.get("name", "").startswith("floor") for one in rows)


def test_the_matrix_has_a_panel_for_each_arm_and_routing_that_differs() -> None:
    titles = [panel.title for panel in matrix.figure(facts()).panels]
    assert len(titles) == 14  # four arms, three of them under ORACLE too, along two sequences
    assert "LoRA r=8, docs \N{RIGHTWARDS ARROW} code, ORACLE routing" in titles
    full = facts().arm("full")
    rows = {(one["phase"], one["task"]): one for one in matrix.matrix_rows(facts(), forth(), full, "latest", {})}
    assert set(rows) == {(phase, task) for phase in ("0: untouched", "1: docs", "2: code")
                         for task in (DOCS, CODE, "old")}
    assert rows["1: docs", DOCS]["score"] < rows["0: untouched", DOCS]["score"]


def test_headings_of_changes_tell_the_sign_and_name_the_unit_once() -> None:
    notes = {column.title: column.note for column in sequence_table(facts(), forth()).columns}
    assert notes["backward transfer"] == "loss, nats/token, positive is better"
    assert notes["drift"] == "loss, nats/token, positive is worse"
    assert notes["average score"] == "loss, nats/token, lower is better"
    assert notes["docs kept"] == "share, higher is better"


def test_transfer_shows_what_is_zero_by_construction_as_such() -> None:
    rows = {one["line"]: one for one in transfer.transfer_rows(facts(), forth(), transfer.BACKWARD, DOCS)}
    assert rows["LoRA r=8, ORACLE"]["kind"] == "exact" and "low" not in rows["LoRA r=8, ORACLE"]
    assert rows["LoRA r=8"]["x"] == pytest.approx(-sequences.FORGETS["lora"], abs=0.03)
    assert "full fine-tuning, ORACLE" not in rows  # no other than LATEST
    forward = transfer.transfer_rows(facts(), forth(), transfer.FORWARD, CODE)
    assert len(forward) == 4 and transfer.transfer_rows(facts(), forth(), transfer.FORWARD, DOCS) == []
    assert "Rings: exactly zero by construction" in transfer.figure(facts()).caption


def test_the_interaction_has_two_lines_of_two_arms() -> None:
    (panel,) = interaction.figure(facts()).panels
    rows = panel.spec["data"]["values"]
    assert [(one["line"], one["at"], one["arm"]) for one in rows] == [
        ("without", 0, "untouched base"), ("without", 1, "LoRA r=8"), ("with", 0, "new layer"),
        ("with", 1, "LoRA and layer")]
    assert panel.title.startswith("H3: interaction \N{MINUS SIGN}0.06")


def test_two_factors_make_a_heat_map() -> None:
    rows = factors.factor_rows(grid(), grid().paths[0], "num_train", "rank")
    assert {(one["x"], one["y"]) for one in rows} == {(n, r) for n in sequences.NUMBERS for r in sequences.RANKS}
    assert all(" to " in one["interval"] for one in rows)
    best = max(rows, key=lambda one: one["signed"])
    assert (best["x"], best["y"]) == (300, 32)
    assert factors.figure(facts()) is None  # its factors are not numeric


def test_arms_that_share_their_levels_make_no_heat_map() -> None:
    """They differ in something that the two factors do not tell."""
    study, table = sequences.make_grid()
    results = analyse(study, table)
    assert factors.figure(Facts(study, results)) is not None
    one, other = list(results.factors)[:2]
    shared = results.model_copy(update={"factors": {**results.factors, one: results.factors[other]}})
    assert factors.figure(Facts(study, shared)) is None


def test_measures_over_the_sequence() -> None:
    table = sequence_table(facts(), forth())
    assert [column.title for column in table.columns] == ["arm", "average score", "docs kept", "backward transfer",
                                                          "forward transfer", "drift"]
    oracle = row(table, "LoRA r=8", "ORACLE")
    assert [(cell.text, cell.note) for cell in oracle.cells[2:4]] == [("1", "by construction"), ("0", "by construction")]
    assert " to " in row(table, "LoRA r=8").cells[2].note
    assert sequence_table(grid(), grid().paths[0]) is None


def test_storage_counts_every_task() -> None:
    table = storage_table(facts(), forth())
    assert [cell.text for cell in row(table, "LoRA r=8").cells[1:]] == ["320 kB", "320 kB", "640 kB"]
    assert storage_table(grid(), grid().paths[0]) is None
    assert row(cost_table(facts(), forth()), "LoRA r=8").cells[8].kind == "number"  # prediction


def test_claims_name_figure_flaw_and_standing() -> None:
    table = claims_table(facts())
    first, second = table.rows
    assert [cell.text for cell in first.cells] == ["LoRA writes better JavaScript.", ".2489 against .2147",
                                                   "0.031 chrF", "0.020 chrF", "0.0110 chrF", "does not survive"]
    assert first.cells[0].note == "flaw: inputs equal labels" and first.cells[5].kind == "outcome"
    assert [cell.text for cell in second.cells[1:5]] == ["no figure published", "not run", "not run", "not told"]


def test_outputs_are_cut_where_they_leave_the_reference() -> None:
    assert [(one.text, one.is_other) for one in pieces("return the list", "return a list")] == [
        ("return ", False), ("the", True), (" list", False)]
    assert [one.is_other for one in pieces("same", "same")] == [False] and pieces("", "x") == ()


def test_what_is_cut_off_is_neither_compared_nor_marked() -> None:
    long = "word " * 1000
    assert [one.is_other for one in pieces(long, long)] == [False, False]  # the text, and the sign that there is more
    assert pieces(long, long)[-1].text == CUT and pieces(long, long[:-3] + "end")[-1] == pieces(long, long)[-1]


def _written(output: str | None) -> Results:
    """The results with one item, for which every arm wrote `output`."""
    results = facts().results
    first = results.examples[0]
    one = first.model_copy(update={"written": tuple(row.model_copy(update={"output": output}) for row in first.written)})
    return results.model_copy(update={"examples": (one,)})


def test_an_empty_answer_is_not_a_missing_one(parse_page) -> None:
    study = facts().study
    for output, said, other in (("", "(empty)", "not recorded"), (None, "not recorded", "(empty)")):
        results = _written(output)
        page, text = parse_page(report_html(study, results)), analysis_markdown(study, results)
        assert said in page.text and other not in page.text and said in text and other not in text


def test_of_several_samples_it_is_said_which_one_is_shown() -> None:
    given, results = facts().study, facts().results
    assert "samples" not in example_pages(facts())[0].rule
    name = results.examples[0].task
    tasks = tuple(use.model_copy(update={"sampling": Sampling(num_samples=4)}) if use.name == name else use
                  for use in given.tasks)
    pages = example_pages(Facts(given.model_copy(update={"tasks": tasks}), results))
    assert "Of 4 samples the first is shown; scores are over all of them." in pages[0].rule


def test_how_outputs_were_made_is_told_of_tasks_that_have_some() -> None:
    given, results = facts().study, facts().results
    assert "Outputs are made thus: greedy, at most 96 tokens." in example_pages(facts())[0].rule
    name = results.examples[0].task
    tasks = tuple(use.model_copy(update={"decoding": Decoding(num_beams=4)}) if use.name == name else
                  use.model_copy(update={"metrics": ("nats-per-token",)}) for use in given.tasks)
    told = dict(provenance_rows(given.model_copy(update={"tasks": tasks}), results))
    assert {row: words for row, words in told.items() if row.startswith("outputs")} == {
        f"outputs of {name}": "4 beams (length penalty 1), at most 96 tokens"}


def test_the_page_shows_outputs_and_can_be_searched(parse_page) -> None:
    page = parse_page(report_html(facts().study, facts().results))
    assert page.open == [] and "Outputs side by side" in page.text
    shown = [value for tag, name, value in page.attributes if (tag, name) == ("details", "class") and value == "example"]
    assert len(shown) == len(facts().results.examples) == 40
    assert any(name == "id" and value == "find" for _, name, value in page.attributes)
    assert any("addEventListener(\"input\"" in text for text in page.scripts)
    sections = [value for tag, name, value in page.attributes if tag == "section" and name == "id"]
    assert sections == ["answer", "claims", "plane", "interaction", "scores", "sequence", "examples", "distributions",
                        "rates", "curves", "forest", "cost", "tuning", "threats", "provenance", "terms"]
    anchors = {value[1:] for tag, name, value in page.attributes if name == "href" and value.startswith("#")}
    assert anchors <= set(sections)


def test_hostile_outputs_stay_text(parse_page) -> None:
    attack = "</script><img src=x onerror=alert(1)>"
    results = facts().results
    examples = tuple(one.model_copy(update={"input": attack, "reference": attack, "written": tuple(
        written.model_copy(update={"output": attack + " more"}) for written in one.written)})
        for one in results.examples[:2])
    hostile = results.model_copy(update={"examples": examples})
    page = parse_page(report_html(facts().study, hostile))
    assert not [tag for tag, _, _ in page.attributes if tag == "img"] and attack in page.text


def test_findings_in_words() -> None:
    cards = {card.name: card for card in view(facts().study, facts().results).cards}
    assert cards["H2"].answer.sentence.startswith("Exactly zero, by construction: LoRA r=8 \N{MINUS SIGN} new layer: "
                                                  "forgetting of docs, ORACLE routing.")
    assert cards["H2"].answer.strip is None and cards["H2"].answer.facts == ()
    assert re.match(r"The opposite was found: in score on code, the step from new layer to LoRA and layer gives 0\.06\d+ "
                    r"chrF less than the step from untouched base to LoRA r=8 \(", cards["H3"].answer.sentence)
    assert cards["H5"].answer.sentence.startswith("On code, full fine-tuning (docs-code) does 0.103 nats/token better "
                                                  "than full fine-tuning (only-code)")
    assert cards["H6"].answer.sentence == "Of 3 comparisons (all of one of 2 groups must hold): 3 supported."
    time = cards["H6"].parts[2]
    assert time.sentence.startswith("The training time on code of full fine-tuning is 1.4") and "times that of" in time.sentence
    assert "5 repeats of the profile" in time.facts
    assert "what was learned before helps full fine-tuning between" in cards["H7"].answer.sentence
    assert cards["H8"].answer.caveats.startswith("At plasticity 0.6") and cards["H1"].answer.caveats == ""


def test_markdown_shows_a_few_outputs() -> None:
    text = analysis_markdown(facts().study, facts().results).replace("\\", "")
    assert "## Outputs side by side" in text and text.count("- reference: ") == 2 * 3
    assert "## Published claims" in text and "## Along the sequence" in text


def test_results_of_before_are_still_read(study, results) -> None:
    new = {"claims", "examples", "distributions", "factors"}
    old = {name: value for name, value in results.model_dump(mode="json").items() if name not in new}
    for cost in old["costs"]:
        for name in ("repeats", "predict_tokens", "predict_tokens_per_second"):
            cost.pop(name)
    for finding in old["findings"]:
        for name in ("n_repeats", "exact", "by_construction"):
            finding.pop(name)
    assert Results.model_validate(old) == results
