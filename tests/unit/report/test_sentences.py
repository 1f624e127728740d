"""Findings in words: direction, interval, and what the verdict means."""

from __future__ import annotations

import pytest

from finetrial.report import sentences
from finetrial.report.strip import strip
from finetrial.spec import Contrast

LABELS = {"full": "Full", "lora": "LoRA"}.__getitem__
SCORE = Contrast(left="full", right="lora", task="new")
FORGETTING = Contrast(left="lora", right="full", quantity="forgetting", task="old", expect="less")
EQUAL = Contrast(left="full", right="lora", task="new", expect="equal", margin=0.05)
RATIO = Contrast(left="lora", right="full", quantity="learning-rate-ratio", expect="within", bounds=(5, 20))
MATCHED = Contrast(left="lora", right="full", quantity="forgetting-at-matched-plasticity", task="old", learned="new")
COST = Contrast(left="lora", right="full", quantity="cost", cost="params_trainable", expect="less")
TIME = Contrast(left="lora", right="full", quantity="cost", cost="train_seconds", expect="less", margin=0.5)
WITHIN = Contrast(left="full", right="lora", task="new", expect="within", bounds=(-0.2, -0.05))


@pytest.mark.parametrize(("contrast", "verdict", "numbers", "text"), [
    (SCORE, "SUPPORTED", (0.31, 0.22, 0.40),
     "On new, Full does 0.310 nats/token better than LoRA (95 % interval 0.220 to 0.400)."),
    (SCORE, "REFUTED", (-0.31, -0.40, -0.22),
     "The opposite was found: on new, LoRA does 0.310 nats/token better than Full (95 % interval 0.220 to 0.400)."),
    (SCORE, "EQUIVALENT", (0.01, -0.02, 0.04),
     ("No difference that matters: on new, Full does between 0.020 worse and 0.040 nats/token better than LoRA (95 % "
      "interval; estimate 0.010 better).")),
    (SCORE, "INCONCLUSIVE", (0.1, -0.1, 0.3),
     ("Not settled: on new, Full does between 0.10 worse and 0.30 nats/token better than LoRA (95 % interval; estimate "
      "0.10 better). With 5 seeds, only a difference of about 0.25 nats/token or more would have shown.")),
    (FORGETTING, "SUPPORTED", (-0.5, -0.6, -0.4),
     "Full forgets 0.50 nats/token more of old than LoRA (95 % interval 0.40 to 0.60)."),
    (MATCHED, "REFUTED", (-0.5, -0.6, -0.4),
     ("The opposite was found: at equal learning of new, Full forgets 0.50 nats/token more of old than LoRA (95 % "
      "interval 0.40 to 0.60).")),
    (COST, "SUPPORTED", (-6_605_088.0, -6_605_088.0, -6_605_088.0),
     "In trainable parameters, Full needs 6,605,088 nats/token more than LoRA (exact)."),
])
def test_the_sentence_says_direction_size_and_interval(new_finding, contrast, verdict, numbers, text):
    finding = new_finding("H1", verdict, *numbers, confidence=0.95, detectable=0.25, exact=contrast is COST)
    assert sentences.verdict_sentence(finding, contrast, LABELS) == text


def test_claims_of_a_range_name_the_range(new_finding):
    equal = new_finding("H1", "SUPPORTED", 0.01, -0.02, 0.04, margin=0.05, confidence=0.95)
    text = sentences.verdict_sentence(equal, EQUAL, LABELS)
    assert text.endswith("inside the margin of \N{PLUS-MINUS SIGN}0.05 nats/token.")
    differ = new_finding("H1", "REFUTED", 0.2, 0.1, 0.3, margin=0.05, confidence=0.95)
    assert sentences.verdict_sentence(differ, EQUAL, LABELS).startswith("They do differ: on new, Full does 0.20")
    ratio = new_finding("H1", "REFUTED", 2.0, 1.0, 4.0, unit="ratio", confidence=0.95)
    assert sentences.verdict_sentence(ratio, RATIO, LABELS) == (
        "The best learning rate of LoRA is 2.0 times that of Full (95 % interval 1.0 to 4.0), outside the stated "
        "bounds 5 to 20.")


def test_bounds_are_told_with_their_own_sign(new_finding):
    """Bounds are of left minus right: what was found inside them is not turned round."""
    found = new_finding("H1", "SUPPORTED", -0.1, -0.15, -0.06, confidence=0.95)
    assert sentences.verdict_sentence(found, WITHIN, LABELS) == (
        "On new, Full does \N{MINUS SIGN}0.100 nats/token better than LoRA (95 % interval \N{MINUS SIGN}0.150 to "
        "\N{MINUS SIGN}0.060), inside the stated bounds \N{MINUS SIGN}0.2 to \N{MINUS SIGN}0.05.")
    shown = strip(found, WITHIN)
    assert shown is not None and shown.band is not None
    assert shown.band[0] < shown.low < shown.high < shown.band[1] < shown.null


@pytest.mark.parametrize(("contrast", "interval", "text"), [
    (EQUAL, (0.03, 0.08), "The interval crosses the margin of \N{PLUS-MINUS SIGN}0.05 nats/token."),
    (EQUAL, (-0.08, -0.03), "The interval crosses the margin of \N{PLUS-MINUS SIGN}0.05 nats/token."),
    (EQUAL, (-0.06, 0.08), "The interval crosses the margin of \N{PLUS-MINUS SIGN}0.05 nats/token on both sides."),
    (WITHIN, (-0.1, 0.0), ("The interval crosses the upper of the stated bounds \N{MINUS SIGN}0.2 to "
                           "\N{MINUS SIGN}0.05.")),
    (RATIO, (2.0, 8.0), "The interval crosses the lower of the stated bounds 5 to 20."),
    (RATIO, (2.0, 30.0), "The interval crosses both of the stated bounds 5 to 20."),
])
def test_an_open_claim_of_a_range_says_where_the_interval_crosses_it(new_finding, contrast, interval, text):
    finding = new_finding("H1", "INCONCLUSIVE", sum(interval) / 2, *interval, margin=contrast.margin, detectable=0.07)
    said = sentences.verdict_sentence(finding, contrast, LABELS)
    assert said.startswith("Not settled: ") and said.endswith(f". {text}") and "would have shown" not in said


def test_a_difference_below_the_margin_is_called_small(new_finding):
    finding = new_finding("H1", "SUPPORTED", 0.02, 0.01, 0.03, margin=0.05)
    assert "real, but below the margin" in sentences.verdict_sentence(finding, SCORE, LABELS)


@pytest.mark.parametrize(("numbers", "is_small"), [((0.30, 0.25, 0.36), False), ((0.75, 0.70, 0.80), True),
                                                   ((1.3, 1.2, 1.4), True), ((1.4, 1.2, 1.6), False)])
def test_a_ratio_is_small_where_it_lies_within_the_factor_of_the_margin(new_finding, numbers, is_small):
    finding = new_finding("H1", "SUPPORTED", *numbers, margin=0.5, unit="ratio")
    said = sentences.verdict_sentence(finding, TIME, LABELS)
    assert ("real, but below the margin of a factor of 1.5" in said) is is_small


def test_exactly_equal_costs_are_called_so(new_finding):
    tie = new_finding("H1", "REFUTED", 0.0, 0.0, 0.0, confidence=None, unit="parameters", exact=True)
    text = "No difference was found: in trainable parameters, LoRA and Full are exactly equal."
    assert sentences.verdict_sentence(tie, COST, LABELS) == text
    before = tie.model_copy(update={"exact": False})  # as in results that do not tell
    assert sentences.verdict_sentence(before, COST, LABELS) == text


def test_a_difference_that_varies_nowhere_is_not_called_exact(new_finding):
    """An exact match of 0 in every run: sampled, so that nothing is known of its noise."""
    zero = new_finding("H1", "INCONCLUSIVE", 0.0, 0.0, 0.0, detectable=0.0)
    assert sentences.verdict_sentence(zero, SCORE, LABELS) == (
        "Not settled: in score on new, Full and LoRA are exactly equal (all runs and items agree, so there is no noise to "
        "judge by).")
    assert not any("detectable" in fact for fact in sentences.support_facts(zero))
    assert strip(zero, SCORE) is None
    step = new_finding("H1", "SUPPORTED", 0.2, 0.2, 0.2, n_clusters=None)
    assert sentences.verdict_sentence(step, SCORE, LABELS) == (
        "On new, Full does 0.200 nats/token better than LoRA (all runs agree, so there is no noise to judge by).")
    steps = SCORE.model_copy(update={"interaction": ("both", "one")})
    assert "the steps from LoRA to Full and from one to both are exactly equal" in sentences.verdict_sentence(
        zero, steps, lambda name: {"full": "Full", "lora": "LoRA"}.get(name, name))


def test_what_was_not_measured_gives_its_reason_and_no_number(new_finding):
    finding = new_finding("H1", "NOT MEASURED", None, None, None, reason="lora: OOM in every run")
    assert sentences.verdict_sentence(finding, SCORE, LABELS) == "Not measured: lora: OOM in every run."
    assert sentences.estimate_text(finding) == sentences.interval_text(finding) == ""


def test_a_failed_assay_shows_no_number_beside_the_verdict(new_finding):
    finding = new_finding("H1", "ASSAY FAILED", 0.3, 0.2, 0.4, reason="0.3")
    text = sentences.verdict_sentence(finding, SCORE, LABELS)
    assert text.startswith("No verdict:") and not any(digit in text for digit in "0123456789")
    assert sentences.support_facts(finding) == () and strip(finding, SCORE) is None


def test_what_stands_beside_a_verdict(new_finding):
    finding = new_finding("H1", "SUPPORTED", 0.3, 0.2, 0.4, margin=0.05, look=2)
    assert sentences.support_facts(finding) == (
        "p < 0.001", "Holm-adjusted p = 0.0016", "5 seeds", "188 clusters",
        "detectable with 80 % power: 0.060 nats/token", "margin \N{PLUS-MINUS SIGN}0.05 nats/token",
        "look 2 at the data")
    bases = new_finding("H1", "SUPPORTED", 0.3, 0.2, 0.4, n_seeds=None)
    assert "items only: no seed variance" in sentences.support_facts(bases)


def test_a_contrast_the_study_does_not_know_is_still_told_with_its_interval(new_finding):
    finding = new_finding("H1", "SUPPORTED", 0.31, 0.22, 0.40, confidence=0.95)
    assert sentences.verdict_sentence(finding, None, LABELS) == (
        "Contrast of H1: 0.310 nats/token (95 % interval 0.220 to 0.400).")


def test_the_picture_lies_the_way_round_that_the_sentence_says(new_finding):
    shown = strip(new_finding("H2", "SUPPORTED", -0.5, -0.6, -0.4), FORGETTING)
    assert shown is not None and shown.null < shown.low < shown.estimate < shown.high
    assert shown.words == ("less", "more") and shown.null_label == "0"
    ratio = strip(new_finding("H5", "SUPPORTED", 9.4, 6.3, 14.1, unit="ratio"), RATIO)
    assert ratio is not None and ratio.band is not None
    assert ratio.null < ratio.band[0] < ratio.low < ratio.high < ratio.band[1]


@pytest.mark.parametrize(("gain", "text"), [(2.0, "2.0 times smaller"), (0.5, "2.0 times larger"), (1.04, "as without it"),
                                            (0.97, "as without it")])
def test_what_pairing_did_to_the_standard_error(new_finding, gain, text):
    found = new_finding("H1", "SUPPORTED", 0.3, 0.2, 0.4, pairing_gain=gain, pairing_correlation=0.25)
    assert f"pairing: r = 0.250, standard error {text}" in sentences.support_facts(found)
