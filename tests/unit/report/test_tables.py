"""Tables: words where a cell failed, an interval and n beside every mean, units in every heading."""

from __future__ import annotations

from synthetic import make_table

from finetrial.analysis.analyse import analyse
from finetrial.report.facts import Estimate, Facts
from finetrial.report.score_tables import perplexity, score_tables
from finetrial.report.tables import audit_table, cost_table, tuning_table
from finetrial.report.tabular import estimate_cell


def facts_of(case: str) -> Facts:
    study, table = make_table(case)
    return Facts(study, analyse(study, table))


def row_of(table, label: str):
    return next(row for row in table.rows if row.cells[0].text == label)


def test_every_arm_has_a_row_and_every_mean_its_interval_and_n(study, results):
    (table,) = score_tables(Facts(study, results))
    assert table.rows[0].cells[0].text == "Untouched base"
    assert len(table.rows) == 8
    for row in table.rows:
        for cell in row.cells[1:]:
            assert cell.kind == "number" and " to " in cell.note and "412 items" in cell.more
    assert row_of(table, "Full fine-tuning").cells[1].text == "2.440"
    assert row_of(table, "Full fine-tuning").cells[1].more == "5 seeds \N{MULTIPLICATION SIGN} 412 items"
    assert "seed" not in row_of(table, "Untouched base").cells[1].more


def test_controls_name_their_fixed_rate_under_a_caption_of_chosen_ones(study, results, new_results):
    (table,) = score_tables(Facts(study, results))
    assert "at the learning rate that validation chose (controls: at the rate in their row)." in table.caption
    notes = {row.arm.role: row.cells[0].note for row in table.rows if row.arm.is_control}
    assert notes == {"A/A": "A/A, at 3e-4, the grid's centre",
                     "positive control": "positive control, at 3e-3, 10 times the grid's centre"}
    alone = new_results(roles={name: role for name, role in results.roles.items() if role in ("base", "arm")},
                        arms={name: text for name, text in results.arms.items() if name not in ("full-x10", "full-aa")},
                        scores=tuple(row for row in results.scores if row.arm not in ("full-x10", "full-aa")),
                        measures=tuple(row for row in results.measures if row.arm not in ("full-x10", "full-aa")))
    assert "controls" not in score_tables(Facts(study, alone))[0].caption


def test_loss_stands_first_with_perplexity_beside_it(study, results):
    (table,) = score_tables(Facts(study, results))
    assert [column.note for column in table.columns[1:3]] == ["loss, nats/token, lower is better",
                                                              "perplexity, lower is better"]
    assert row_of(table, "Full fine-tuning").cells[2].text == "11.47"  # e^2.44
    own = score_tables(facts_of("supported"))  # these results have a perplexity metric of their own
    assert [column.note.split(",")[0] for column in own[0].columns[1:]] == ["loss", "perplexity"] * 2
    assert "bits per byte" in own[1].columns[2].note + own[1].columns[1].note


def test_a_failed_arm_reads_as_its_outcome_in_every_cell():
    for table in score_tables(facts_of("oom-arm")):
        for cell in row_of(table, "LoRA r=32").cells[1:]:
            assert (cell.text, cell.kind) == ("OOM", "outcome")
            assert not any(digit in cell.text for digit in "0123456789")


def test_what_is_not_there_reads_missing():
    table = score_tables(facts_of("base-only"))[0]
    assert row_of(table, "untouched base").cells[1].kind == "number"
    assert {cell.kind for cell in row_of(table, "LoRA r=8").cells[1:]} == {"missing"}


def test_failures_beside_a_mean_are_counted_and_unscored_items_shown():
    cell = estimate_cell(Estimate(2.5, 2.4, 2.6, num_seeds=3, num_items=40, num_missing_items=2,
                                  failures={"OOM": 1, "DIVERGED": 1}))
    assert (cell.text, cell.note) == ("2.50", "2.40 to 2.60")
    assert cell.more == "3 seeds \N{MULTIPLICATION SIGN} 40 items, 2 unscored, failed: 1 DIVERGED and 1 OOM"
    assert estimate_cell(Estimate(2.5)).note == "no interval"


def test_perplexity_is_e_to_the_loss_and_its_ends():
    found = perplexity(Estimate(0.0, -1.0, 1.0))
    assert (round(found.value, 3), round(found.low, 3), round(found.high, 3)) == (1.0, 0.368, 2.718)


def test_unknown_costs_read_unknown(study, results):
    facts = Facts(study, results)
    table = cost_table(facts, facts.paths[0])
    cells = row_of(table, "LoRA r=8 (attention)").cells
    assert [cell.text for cell in cells[1:4]] == ["73.7 k", "1.06 %", "295 kB"]
    assert cells[1].help == "73,728"
    assert cells[8].text == "unknown" and cells[8].kind == "missing"  # prediction was not profiled
    assert [row.cells[0].text for row in table.rows if "x10" in row.cells[0].text] == []


def test_no_cost_no_tuning_no_audit_no_table(study, new_results):
    facts = Facts(study, new_results(costs=(), tuning=(), audit=()))
    assert cost_table(facts, facts.paths[0]) is None
    assert tuning_table(facts) is None and audit_table(facts) is None


def test_rates_that_the_primary_metric_did_not_judge_are_unknown(study, new_results, results):
    def by_primary(*rates: float | None):
        tuning = tuple(row.model_copy(update={"chosen_by_primary": rate}) for row, rate in
                       zip(results.tuning[:5], rates, strict=True))
        return tuning_table(Facts(study, new_results(tuning=tuning))).rows[0].cells[3]

    assert (by_primary(*[None] * 5).text, by_primary(*[None] * 5).kind) == ("unknown", "missing")
    assert by_primary(1e-3, 1e-3, None, 1e-3, None).text == "1e-3: 3, unknown: 2"


def test_tuning_shows_grid_votes_and_edges(study, results):
    table = tuning_table(Facts(study, results))
    inside, edge = row_of(table, "LoRA r=128 (attention)"), row_of(table, "Full fine-tuning")
    assert [cell.text for cell in inside.cells[1:3]] == ["1e-3 3e-3 1e-2", "3e-3: 5"]
    assert inside.cells[4].text == "inside the grid"
    assert (edge.cells[4].text, edge.cells[4].kind) == ("at the edge for 5 of 5 seeds", "warning")
