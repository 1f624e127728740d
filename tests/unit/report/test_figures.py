"""Figures: the rows behind them, one look for each arm, valid specifications."""

from __future__ import annotations

import json
from types import SimpleNamespace

import altair
import pytest
from synthetic import CASES, make_table

from finetrial.analysis.analyse import analyse
from finetrial.records.record import Outcome
from finetrial.report.arms import arm_marks
from finetrial.report.facts import Facts
from finetrial.report.figures import all_figures, curves, efficiency, forest, plane, rates
from finetrial.report.figures.theme import Figure, Panel
from finetrial.report.render import file_spec, page_specs, stable_svg


@pytest.fixture(scope="module")
def facts(study, results) -> Facts:
    return Facts(study, results)


@pytest.fixture(scope="module")
def figures(facts):
    return {figure.name: figure for figure in all_figures(facts)}


def test_every_figure_is_a_valid_specification(figures):
    assert list(figures) == ["plane", "rates", "curves", "forest", "efficiency"]
    for figure in figures.values():
        altair.LayerChart.from_dict(page_specs(figure)[0], validate=True)


def test_specifications_name_no_server(figures):
    for figure in figures.values():
        assert "http" not in json.dumps([file_spec(figure), page_specs(figure)])


def test_an_arm_looks_the_same_everywhere(facts, figures):
    looks = {(arm.label, arm.colour) for arm in facts.arms}
    for name in ("plane", "curves", "efficiency"):
        for spec in page_specs(figures[name]):
            for layer in spec["layer"]:
                scale = layer["encoding"].get("color", {}).get("scale")
                if scale:
                    assert set(zip(scale["domain"], scale["range"], strict=True)) <= looks
    assert len({(arm.colour, arm.shape) for arm in facts.arms}) == len(facts.arms)


def test_panels_with_different_arms_keep_each_arm_its_look_in_files() -> None:
    """Scales are shared between panels: of domains that differ the ranges of all but the first would be lost."""
    def panel(looks: dict[str, str]) -> Panel:
        scale = {"domain": [*looks], "range": [*looks.values()]}
        return Panel({"layer": [{"mark": "point", "encoding": {"color": {"field": "arm", "scale": scale}}},
                                    {"mark": "rule", "encoding": {"opacity": {"scale": {"domain": [0, 1], "range": [0, 1]}}}}]})

    looks = {"a": "#111111", "b": "#222222", "c": "#333333"}
    figure = Figure("plane", "", "", "", (panel({"a": looks["a"]}), panel({"b": looks["b"], "c": looks["c"]})), 2, 200)
    for drawn in file_spec(figure)["concat"]:
        colour, opacity = (layer["encoding"] for layer in drawn["layer"])
        assert dict(zip(*(colour["color"]["scale"][end] for end in ("domain", "range")), strict=True)) == looks
        assert opacity["opacity"]["scale"]["domain"] == [0, 1]
    assert page_specs(figure)[0]["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["a"]


def test_many_arms_still_differ(new_results):
    arms = {f"arm-{number}": f"Arm {number}" for number in range(20)}
    marks = arm_marks(new_results(arms=arms, roles={}, scores=(), measures=(), costs=()))
    assert len({(mark.colour, mark.shape) for mark in marks if mark.role == "arm"}) == 20


def test_the_plane_has_a_mark_for_every_arm_and_leaves_a_far_control_out(facts, figures):
    rows = plane.plane_rows(facts, facts.paths[0], "python-text")
    marks = {row["name"]: row for row in rows if row["kind"] == "mark"}
    assert set(marks) == {arm.name for arm in facts.arms if arm.role != "A/A"}
    assert (marks["base"]["x"], marks["base"]["y"]) == (0.0, 0.0)
    assert marks["full"]["x1"] < marks["full"]["x"] < marks["full"]["x2"]
    assert "Outside the frame: Full fine-tuning at 10 times its centre rate, learned" in figures["plane"].caption
    assert sum(row["kind"] == "mean" for row in rows) == 15
    assert sum(row["kind"] == "seed" for row in rows) == 75


def test_the_noise_floor_is_the_distance_of_two_equal_arms_at_one_rate(facts):
    rows = plane.plane_rows(facts, facts.paths[0], "python-text")
    floor = next(row for row in rows if row["kind"] == "floor")
    again, once = (next(row for row in plane._trail_rows(facts, facts.paths[0], "python-text")
                        if row["kind"] == "mean" and row["name"] == name and row["at"] == "3e-4")
                   for name in ("full-aa", "full"))
    assert floor["x2"] - floor["x"] == pytest.approx(2 * abs(again["x"] - once["x"]))
    caption = plane.figure(facts).caption
    assert "both at the centre of the grid, lie apart" in caption and "(A/A) has no mark" in caption
    assert "in forgetting, one draw of what no effect looks like; chance alone can do more." in caption
    assert "noise" not in caption


def test_an_aa_box_that_its_mark_hides_is_not_drawn_and_says_so(facts, monkeypatch):
    def kinds(figure):
        return {row["kind"] for row in figure.panels[0].spec["data"]["values"]}

    monkeypatch.setattr(plane, "_MARK", 0.0)
    assert "floor" in kinds(plane.figure(facts)) and "Grey box around the reference arm: how far" in plane.figure(facts).caption
    monkeypatch.setattr(plane, "_MARK", 1.0)
    assert "floor" not in kinds(plane.figure(facts))
    assert "Not drawn, being smaller than a mark: how far" in plane.figure(facts).caption


def test_rates_show_every_seed_the_choice_and_failures_in_words(study, new_results, results):
    scores = tuple(row.model_copy(update={"value": None, "outcome": Outcome.DIVERGED})
                   if row.arm == "full" and row.point.learning_rate == 1e-3 and row.step is None else row
                   for row in results.scores)
    facts = Facts(study, new_results(scores=scores))
    full = next(arm for arm in facts.arms if arm.name == "full")
    rows = rates.rate_rows(facts, facts.paths[0], full, 1)
    assert [row["word"] for row in rows if row["kind"] == "failed"] == ["DIVERGED \N{MULTIPLICATION SIGN}5"]
    assert sum(row["kind"] == "seed" for row in rows) == 10
    lora = next(arm for arm in facts.arms if arm.name == "lora-r128")
    chosen = [row for row in rates.rate_rows(facts, facts.paths[0], lora, 1) if row["kind"] == "chosen"]
    assert [row["at"] for row in chosen] == ["3e-3"] * 5


def test_arms_with_one_rate_have_no_rate_curve(facts):
    control = next(arm for arm in facts.arms if arm.role == "A/A")
    assert rates.rate_rows(facts, facts.paths[0], control, 1) == []


def test_curves_are_means_over_seeds_at_the_chosen_rate(facts):
    lines = curves.curve_rows(facts, facts.paths[0], 1)
    assert [(split, task) for split, task, _ in lines] == [("train", "pydoc-chat"), ("val", "pydoc-chat")]
    for rows in lines.values():
        assert all(row["n"] == 5 and row["low"] <= row["value"] <= row["high"] for row in rows)


def test_curves_of_recorded_runs_follow_the_choice():
    study, table = make_table("supported")
    facts = Facts(study, analyse(study, table))
    rows = curves.curve_rows(facts, facts.paths[0], 1)["val", "new", "nats-per-token"]
    assert {row["n"] for row in rows} == {5}
    assert {row["name"] for row in rows} == {"full", "lora-r8", "lora-r32", "full-x10", "full-aa"}


def test_seeds_that_end_at_unlike_steps_are_matched_by_evaluation():
    """A budget in tokens: seed 0 evaluates at 10, 20, 30, seed 1 at 10, 20, 31; seed 2 stopped early."""
    runs = {("full", 0): [(10, 3.0), (30, 1.0), (20, 2.0)], ("full", 1): [(10, 5.0), (20, 4.0), (31, 3.0)]}
    arms = SimpleNamespace(arms=[SimpleNamespace(name="full", label="Full")])
    assert [(row["step"], row["value"], row["low"], row["n"]) for row in curves._lines(arms, runs)] == [
        (10, 4.0, 3.0, 2), (20, 3.0, 2.0, 2), (30.5, 2.0, 1.0, 2)]
    cut = curves._lines(arms, {**runs, ("full", 2): [(10, 4.0)]})
    assert [(row["step"], row["alone"]) for row in cut] == [(10, True)]  # it is drawn as a point
    assert not any(row["alone"] for row in curves._lines(arms, runs))


def test_single_evaluations_are_no_learning_curve(study, results, new_results):
    last = tuple(row for row in results.scores if row.step is None or (row.split, row.step) == ("val", 80))
    assert curves.figure(Facts(study, new_results(scores=last))) is None
    some = tuple(row for row in results.scores if row.split != "val" or row.step in (None, 80))
    assert [one.title for one in curves.figure(Facts(study, new_results(scores=some))).panels] == ["training, pydoc-chat"]


def test_long_curves_are_thinned_but_keep_their_ends():
    kept = curves._thinned(list(range(0, 5000, 5)))
    assert len(kept) == curves.MAX_POINTS and (kept[0], kept[-1]) == (0, 4995)


def test_the_forest_has_every_contrast_with_an_interval(facts):
    rows = [row for row, _ in forest.forest_rows(facts)]
    assert [row["verdict"] for row in rows] == ["SUPPORTED", "SUPPORTED", "INCONCLUSIVE", "SUPPORTED", "REFUTED",
                                                "SUPPORTED"]
    assert rows[-1]["unit"] == "ratio" and (rows[-1]["band_low"], rows[-1]["band_high"]) == (5, 20)


def test_the_line_of_no_difference_stands_beside_intervals_not_texts(facts):
    for drawn in forest.figure(facts).panels:
        rows = drawn.spec["data"]["values"]
        assert {row["null"] for row in rows} == ({1.0} if drawn.title == "ratio" else {0.0})
        lines = [layer for layer in drawn.spec["layer"] if layer["encoding"]["x"].get("field") == "null"]
        assert [line["mark"]["type"] for line in lines] == ["tick"] and "y" in lines[0]["encoding"]


def test_the_forest_shows_two_equal_arms_beside_comparisons_in_their_unit(study, results, new_results):
    figure = forest.figure(Facts(study, results))
    text = "minus full fine-tuning, repeated at its centre rate, on pydoc-chat"
    assert [text in json.dumps(panel.spec) for panel in figure.panels] == ["nats/token" in panel.title for panel in figure.panels]
    unknown = results.assay.model_copy(update={"aa_low": None, "aa_high": None})
    assert text not in json.dumps([panel.spec for panel in forest.figure(Facts(study, new_results(assay=unknown))).panels])


def test_unknown_cost_drops_its_panel_and_says_so(study, results, new_results):
    costs = tuple(row.model_copy(update={"peak_host_bytes": None}) for row in results.costs)
    facts = Facts(study, new_results(costs=costs))
    figure = efficiency.figure(facts)
    assert figure is not None and len(figure.panels) == 2
    assert "Unknown, so not shown: peak memory." in figure.caption


@pytest.mark.parametrize("case", CASES)
def test_every_case_draws_what_it_has(case):
    study, table = make_table(case)
    names = [figure.name for figure in all_figures(Facts(study, analyse(study, table)))]
    expected = {"base-only": [], "nothing": [], "two-seeds": ["plane", "rates", "curves", "efficiency"]}
    assert names == expected.get(case, names) and (names or case in ("base-only", "nothing"))


def test_svg_ids_are_counted_from_zero():
    first = stable_svg('<a clip-path="url(#clip7)"/><clipPath id="clip7"/><clipPath id="clip9"/>')
    assert first == stable_svg('<a clip-path="url(#clip1)"/><clipPath id="clip1"/><clipPath id="clip2"/>')
    assert "url(#clip0)" in first


def test_a_rate_far_from_the_chosen_arms_is_left_out_of_the_frame(facts):
    rows = plane.plane_rows(facts, facts.paths[0], "python-text")
    worst = next(row for row in rows if row["kind"] == "mean" and row["name"] == "full")
    rows = [{**row, "y": 50.0} if row is worst else row for row in rows]
    (_, vertical), far = plane._frame(facts, rows)
    assert vertical[1] < 50 and any(row["y"] == 50.0 for row in far)
    assert plane._outside({**worst, "y": 50.0}).endswith("forgotten 50.0 (mean of seeds)")
