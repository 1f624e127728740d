"""Power before the run: from earlier records, from the A/A control, from a stated prior."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache

import pytest
from rich.console import Console
from synthetic import MARGIN, make_table

from finetrial.analysis.contrasts import answer
from finetrial.analysis.power import detectable_with
from finetrial.analysis.trial import Trial
from finetrial.errors import UserError
from finetrial.plan.power import UNKNOWN, forecast_power, render_power, stated_noise
from finetrial.records.table import Table
from finetrial.spec import Study


@cache
def trial(case: str = "supported") -> tuple[Study, Table]:
    return make_table(case)


def with_seeds(study: Study, count: int) -> Study:
    return study.model_copy(update={"seeds": tuple(range(count))})


def only(table: Table, *arms: str, seeds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Table:
    kept = [row for row in table.scores if row.cell.arm in ("base", *arms) and row.cell.seed in (None, *seeds)]
    return replace(table, scores=kept)


def test_earlier_seeds_foretell_what_later_ones_can_find() -> None:
    study, table = trial()
    first = study.hypotheses[0].contrasts[0]
    found = answer(Trial(study, table), first).estimate
    assert found is not None and found.components is not None
    row = forecast_power(with_seeds(study, 10), table)[0]
    assert row.source == "5 seeds recorded" and row.num_seeds == 10 and row.num_clusters == found.num_clusters
    assert row.effect == pytest.approx(detectable_with(found.components, 10, found.num_clusters, row.alpha))
    five = forecast_power(study, table)[0]
    assert five.effect is not None and row.effect is not None and five.effect > row.effect
    assert row.margin == MARGIN and row.unit == "nats/token"


def test_the_error_rate_is_that_of_holms_first_step_divided_by_looks() -> None:
    study, table = trial()
    rows = {row.hypothesis: row for row in forecast_power(study, table)}
    assert set(rows) == {"H1", "H2", "H3", "H4", "H5"}, "costs have no row, all others have"
    assert rows["H1"].alpha == pytest.approx(0.05 / 4) and rows["H5"].alpha == pytest.approx(0.05)
    looked = forecast_power(study, table, num_looks=3)
    assert looked[0].alpha == pytest.approx(0.05 / 12)


def test_a_ratio_is_told_as_a_ratio() -> None:
    study, table = trial()
    row = next(row for row in forecast_power(study, table) if row.hypothesis == "H3")
    assert row.unit == "times" and (row.effect is None or row.effect >= 1)


def test_fewer_than_three_recorded_seeds_leave_the_aa_control_or_nothing() -> None:
    study, table = trial()
    row = forecast_power(study, only(table, "full", "full-aa"))[0]  # the other arm has not been run
    assert row.at_least and row.source.startswith("A/A")
    row = forecast_power(study, only(table, "full", "lora-r8", seeds=(0, 1)))[0]
    assert row.effect is None and row.reason == UNKNOWN
    assert "unknown" in text(study, only(table, "full", seeds=(0,)))


def test_a_stated_prior_stands_in_for_what_is_not_known() -> None:
    study, table = trial()
    rows = forecast_power(study, expected=stated_noise("0.02"))
    assert rows[0].source == "stated" and rows[0].effect == pytest.approx(
        detectable_with(stated_noise("0.02").components, 5, 200, rows[0].alpha))
    with_items = forecast_power(study, expected=stated_noise("0.02,0.6"))
    assert with_items[0].effect is not None and rows[0].effect is not None and with_items[0].effect > rows[0].effect
    assert forecast_power(study, table, expected=stated_noise("9"))[0].source == "5 seeds recorded"


@pytest.mark.parametrize("text", ["", "a", "1,2,3", "-1", "nan"])
def test_a_prior_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="expect-sd"):
        stated_noise(text)


def test_a_margin_out_of_reach_is_told_with_the_seeds_it_takes() -> None:
    study, _ = trial()
    rows = forecast_power(study, expected=stated_noise("0.1"))
    assert rows[0].is_out_of_reach and rows[0].seeds_for_margin is not None and rows[0].seeds_for_margin > 5
    assert not any(row.is_out_of_reach for row in forecast_power(study, expected=stated_noise("0.001")))
    too_few_items = forecast_power(study, expected=stated_noise("0,5"))
    assert too_few_items[0].seeds_for_margin is None and too_few_items[0].is_out_of_reach
    assert rows[0].as_json()["is_out_of_reach"] is True


def test_without_seeds_or_noise_it_says_so() -> None:
    study, table = trial()
    assert forecast_power(study)[0].effect is None
    assert "no interval" in forecast_power(with_seeds(study, 2), table)[0].reason


def text(study: Study, table: Table) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(render_power(forecast_power(study, table)))
    return console.export_text()


def test_it_is_shown() -> None:
    shown = text(*trial())
    assert "Detectable" in shown and "5 seeds recorded" in shown and "nats/token" in shown
