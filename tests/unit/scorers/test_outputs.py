"""Metrics of generated outputs: what is missing, what fits a task, tokens, and cases worked by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetrial import catalog
from finetrial.errors import DataError, MissingPackage, UserError
from finetrial.scorers import bleu, meteor, rouge, syntax, tokens
from finetrial.scorers.base import Scorer
from finetrial.tasks.base import Task


def scorer(name: str, **options: Any) -> Scorer:
    made = catalog.find("scorer", name)(**options)
    assert isinstance(made, Scorer)
    return made


def value(name: str, output: str | None, reference: str | None = "", **options: Any) -> float:
    made = scorer(name, **options)
    return float(made.aggregate(made.statistics({"output": [output], "reference": [reference]})[0]))


def task(generates: bool, language: str) -> Task:
    class Made(Task):
        def source_digest(self) -> str:
            return ""

        def load(self) -> Any:
            return None

        def render(self, example: Any) -> Any:
            return ()

    Made.generates, Made.language = generates, language
    return Made()


# --- what is missing ---


def test_a_reference_in_which_rouge_sees_no_word_is_missing_and_not_zero() -> None:
    assert np.isnan(value("rouge-1", "привет", "привет"))
    assert np.isnan(value("rouge-2", "one", "one")) and value("rouge-1", "one", "one") == 1.0


@pytest.mark.parametrize("name", ["rouge-l", "bleu", "chrf", "meteor", "exact-match", "length-ratio"])
def test_a_blank_reference_is_missing(name: str) -> None:
    assert np.isnan(value(name, "some words here", " \n"))
    assert np.isnan(value(name, "some words here", None))


@pytest.mark.parametrize("name", ["bleu", "length-ratio"])
def test_a_reference_without_tokens_is_missing(name: str) -> None:
    assert np.isnan(value(name, "some words here", "<skipped>"))  # which 13a takes out


def test_an_absent_column_is_named() -> None:
    with pytest.raises(DataError, match="no column 'reference'"):
        scorer("bleu").statistics({"output": ["a"]})
    with pytest.raises(DataError, match="no column 'num_samples'"):
        scorer("pass-at-k").statistics({"output": ["a"]})
    with pytest.raises(DataError, match="3 of 2 samples"):
        scorer("pass-at-k").statistics({"num_samples": [2], "num_passed": [3]})


# --- what fits a task ---


@pytest.mark.parametrize("name", catalog.names("scorer"))
def test_metrics_of_outputs_need_a_task_that_generates(name: str) -> None:
    found = catalog.find("scorer", name)
    silent = task(generates=False, language="python")
    if found.needs != "outputs":
        found.check(silent)
    else:
        with pytest.raises(UserError, match=rf"metric {name} reads generated outputs.*\n.*nats-per-token"):
            found.check(silent)


@pytest.mark.parametrize("name, fits, fits_not", [("ast-similarity", "javascript", "text"),
                                                  ("syntax-pass-rate", "python", "java"),
                                                  ("continuation-rate", "text", "python")])
def test_a_metric_that_does_not_fit_the_language_is_refused(name: str, fits: str, fits_not: str) -> None:
    found = catalog.find("scorer", name)
    found.check(task(generates=True, language=fits))
    with pytest.raises(UserError, match=f"{name} reads .* generates {fits_not}"):
        found.check(task(generates=True, language=fits_not))


@pytest.mark.parametrize("target, fits, fits_not", [("python", "syntax-pass-rate", "continuation-rate"),
                                                    ("text", "continuation-rate", "syntax-pass-rate")])
def test_the_language_of_an_option_is_what_metrics_read(target: str, fits: str, fits_not: str) -> None:
    """The class of `prompt-completion` says text; `target: python` makes its completions code."""
    pairs = catalog.find("task", "prompt-completion")(path="pairs.jsonl", target=target)
    catalog.find("scorer", fits).check(pairs)
    with pytest.raises(UserError, match=f"{fits_not} reads .*prompt-completion generates {target}"):
        catalog.find("scorer", fits_not).check(pairs)


@pytest.mark.parametrize("package, load, install", [
    ("sacrebleu.metrics.bleu", bleu._sacrebleu, "pip install sacrebleu"),
    ("sacrebleu.tokenizers.tokenizer_13a", tokens._tokenizer_13a, "pip install sacrebleu"),
    ("nltk.translate.meteor_score", meteor._nltk, "pip install nltk"),
    ("rouge_score.rouge_scorer", lambda: rouge._scorer("rouge1"), "pip install rouge_score"),
    ("tree_sitter_javascript", lambda: syntax.parser("javascript"), "pip install tree-sitter-javascript")])
def test_a_missing_package_is_answered_with_the_line_that_installs_it(
        monkeypatch: pytest.MonkeyPatch, package: str, load: Any, install: str) -> None:
    for cached in (bleu._sacrebleu, tokens._tokenizer_13a, meteor._nltk, rouge._scorer, syntax.parser):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=install):
        load()


def test_metrics_load_no_library_before_they_are_used() -> None:
    """Planning asks every metric what it needs and whether it fits; none of their libraries is imported for that."""
    program = """
import sys
from finetrial import catalog
for name in catalog.names("scorer"):
    catalog.find("scorer", name)()
heavy = {"nltk", "rouge_score", "absl", "sacrebleu", "lxml", "tree_sitter", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    source = Path(__file__).parents[3] / "src"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(source)})
    assert done.returncode == 0, done.stderr


# --- cases worked by hand ---


def test_the_lexer_of_code() -> None:
    assert tokens.tokens("if a_1 !== $b.c: x **= 1.5e-3; f('it is') // é", "javascript") == [
        "if", "a_1", "!==", "$b", ".", "c", ":", "x", "**=", "1.5e-3", ";",
        "f", "(", "'", "it", "is", "'", ")", "//", "é"]
    assert tokens.tokens("Don't stop, 3.5 times.", "text") == ["Don't", "stop", ",", "3.5", "times", "."]


def test_bleu_by_hand() -> None:
    """Five tokens against six: 5/5, 4/4, 3/3, 2/2 and exp(1 - 6/5); with one token wrong at the end also by hand."""
    assert value("bleu", "a b c d e", "a b c d e f") == pytest.approx(np.exp(1 - 6 / 5))
    assert value("bleu", "a b c d x", "a b c d e") == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert value("bleu", "a b x d", "a b c d") == pytest.approx((3 / 4 * 1 / 3 * 1 / (2 * 2) * 1 / (4 * 1)) ** 0.25)
    assert value("bleu", "a == b", "a = = b", language="python") < 1.0


def test_chrf_by_hand() -> None:
    """`ab` against `abc`: precision 1 and 1, recall 2/3 and 1/2 over the two orders that both have."""
    recall = (2 / 3 + 1 / 2) / 2
    assert value("chrf", "a b", "abc") == pytest.approx(5 * recall / (4 + recall))


def test_meteor_by_hand() -> None:
    """All words match, `runs` by its stem, in one chunk of four; a synonym does not match."""
    assert value("meteor", "the old dog running", "the old dog runs") == pytest.approx(1 - 0.5 / 64)
    assert value("meteor", "rapid", "quick") == 0.0


def test_length_ratio_and_repetition_by_hand() -> None:
    assert value("length-ratio", "one two", "one two three four") == 0.5
    assert value("length-ratio", "", "one two") == 0.0
    assert value("repetition", "a b c d a b c d") == pytest.approx(1 / 5)
    assert np.isnan(value("repetition", "a b c"))  # no 4-gram to repeat, and no weight in the sum
    assert scorer("repetition").statistics({"output": ["a b c"]}).tolist() == [[0.0, 0.0]]


def test_exact_match_ignores_space_at_the_ends_only() -> None:
    assert value("exact-match", " a b\n", "a b") == 1.0 and value("exact-match", "a  b", "a b") == 0.0
