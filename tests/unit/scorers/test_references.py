"""Every metric of outputs against its independent reference, pair by pair and over the corpus, on real pairs."""

from __future__ import annotations

import ast
import functools
import math
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from real_pairs import Pairs, javascript_pairs, python_pairs, text_pairs

from finetrial import catalog
from finetrial.analysis.linearise import linearised
from finetrial.scorers.base import Scorer
from finetrial.scorers.syntax import parsed
from finetrial.scorers.tokens import tokens

PAIRS = {"text": text_pairs, "python": python_pairs, "javascript": javascript_pairs}


def scorer(name: str, language: str = "text") -> Scorer:
    found = catalog.find("scorer", name)
    made = found(language=language) if "language" in found.model_fields else found()
    assert isinstance(made, Scorer)
    return made


def statistics(made: Scorer, pairs: Pairs) -> Any:
    return made.statistics({"output": pairs[0], "reference": pairs[1]})


def item_values(made: Scorer, pairs: Pairs) -> Any:
    """The value of each pair by itself."""
    return made.aggregate(statistics(made, pairs))


@pytest.mark.parametrize("language", PAIRS)
def test_there_are_enough_real_pairs(language: str) -> None:
    outputs, references = PAIRS[language]()
    assert len(references) >= 200 and len(set(references)) > 190
    assert 10 < sum(output == reference for output, reference in zip(outputs, references, strict=True)) < 100


KINDS = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL", "rouge-lsum": "rougeLsum"}


@functools.cache
def with_lines() -> Pairs:
    """Sentences on lines of their own, as ROUGE-Lsum wants them; the other kinds do not see lines."""
    outputs, references = (tuple(text.replace(". ", ".\n") for text in side) for side in text_pairs())
    return outputs, references


@functools.cache
def rouge_scores() -> list[dict[str, Any]]:
    from rouge_score.rouge_scorer import RougeScorer

    reference = RougeScorer(list(KINDS.values()), use_stemmer=True)
    return [reference.score(target, output) for output, target in zip(*with_lines(), strict=True)]


@pytest.mark.parametrize("name", KINDS)
def test_rouge_is_rouge_score(name: str) -> None:
    expected = [score[KINDS[name]].fmeasure for score in rouge_scores()]
    assert item_values(scorer(name), with_lines()) == pytest.approx(expected, abs=1e-6)


def sacrebleu_texts(language: str) -> tuple[str, Pairs]:
    """What sacrebleu is given: raw text for its own tokenizer, code as the tokens of the lexer."""
    if language == "text":
        return "13a", text_pairs()
    outputs, references = (tuple(" ".join(tokens(code, language)) for code in side) for side in PAIRS[language]())
    return "none", (outputs, references)


@pytest.mark.parametrize("language", PAIRS)
def test_bleu_is_sacrebleu(language: str) -> None:
    from sacrebleu.metrics.bleu import BLEU

    tokenizer, (outputs, references) = sacrebleu_texts(language)
    reference, made = BLEU(tokenize=tokenizer, force=True), scorer("bleu", language)
    rows = statistics(made, PAIRS[language]())
    for chosen in (slice(None), slice(0, 50), slice(100, 103), slice(7, 8)):
        expected = reference.corpus_score(outputs[chosen], [references[chosen]]).score / 100
        assert made.aggregate(rows[chosen].sum(axis=0)) == pytest.approx(expected, abs=1e-9)
    expected_items = [reference.corpus_score([output], [[target]]).score / 100
                      for output, target in zip(outputs, references, strict=True)]
    assert made.aggregate(rows) == pytest.approx(expected_items, abs=1e-9)


@pytest.mark.parametrize("language", PAIRS)
def test_chrf_is_sacrebleu(language: str) -> None:
    from sacrebleu.metrics.chrf import CHRF

    (outputs, references), reference, made = PAIRS[language](), CHRF(), scorer("chrf")
    rows = statistics(made, (outputs, references))
    for chosen in (slice(None), slice(0, 50), slice(100, 103)):
        expected = reference.corpus_score(outputs[chosen], [references[chosen]]).score / 100
        assert made.aggregate(rows[chosen].sum(axis=0)) == pytest.approx(expected, abs=1e-9)
    expected_items = [reference.corpus_score([output], [[target]]).score / 100
                      for output, target in zip(outputs, references, strict=True)]
    assert made.aggregate(rows) == pytest.approx(expected_items, abs=1e-9)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_leaving_a_cluster_out_is_scoring_the_rest(name: str) -> None:
    """The jackknife's values are the corpus metric of all items but one cluster's."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    outputs, references = (side[:40] for side in text_pairs())
    made = scorer(name)
    clusters = statistics(made, (outputs, references)).reshape(20, 2, -1).sum(axis=1)
    reference = BLEU(force=True) if name == "bleu" else CHRF()
    left_out = [reference.corpus_score(outputs[:2 * at] + outputs[2 * at + 2:],
                                       [references[:2 * at] + references[2 * at + 2:]]).score / 100 for at in range(20)]
    whole = reference.corpus_score(outputs, [references]).score / 100
    expected = whole + 19 * (np.mean(left_out) - np.array(left_out))
    assert linearised(clusters[None], made.aggregate)[0] == pytest.approx(expected, abs=1e-7)


def test_meteor_is_nltk_without_synonyms() -> None:
    from nltk.tokenize import wordpunct_tokenize
    from nltk.translate.meteor_score import single_meteor_score

    class Empty:
        def synsets(self, word: str) -> list[Any]:
            return []

    outputs, references = text_pairs()
    expected = [single_meteor_score(wordpunct_tokenize(target), wordpunct_tokenize(output), wordnet=Empty())
                for output, target in zip(outputs, references, strict=True)]
    assert item_values(scorer("meteor"), (outputs, references)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_ast_similarity_is_codebleus_syntax_match(language: str) -> None:
    """Against the steps of CodeBLEU's program, written out: subtrees as s-expressions, looked up one by one."""
    import tree_sitter_javascript
    import tree_sitter_python
    from tree_sitter import Language, Parser

    grammar = {"python": tree_sitter_python, "javascript": tree_sitter_javascript}[language]
    parser = Parser(Language(grammar.language()))

    def all_subtrees(node: Any) -> list[str]:
        return [str(node), *(found for child in node.children if child.children for found in all_subtrees(child))]

    kept = [pair for pair in zip(*PAIRS[language](), strict=True)
            if all(parsed(code, language)[0] == code.encode() for code in pair)]  # not methods, which CodeBLEU lacks
    assert len(kept) >= 200
    outputs, references = (tuple(side) for side in zip(*kept, strict=True))
    matched, total = [], []
    for output, target in zip(outputs, references, strict=True):
        have, wanted = (all_subtrees(parser.parse(code.encode()).root_node) for code in (output, target))
        matched.append(sum(subtree in have for subtree in wanted))
        total.append(len(wanted))
    rows = statistics(scorer("ast-similarity", language), (outputs, references))
    assert rows.tolist() == [[*pair] for pair in zip(matched, total, strict=True)]
    assert scorer("ast-similarity", language).aggregate(rows.sum(axis=0)) == pytest.approx(sum(matched) / sum(total))


@pytest.mark.parametrize("language", PAIRS)
def test_length_ratio_is_that_of_sacrebleu(language: str) -> None:
    from sacrebleu.metrics.bleu import BLEU

    tokenizer, (outputs, references) = sacrebleu_texts(language)
    expected = BLEU(tokenize=tokenizer, force=True).corpus_score(outputs, [references])
    rows = statistics(scorer("length-ratio", language), PAIRS[language]())
    assert rows.sum(axis=0).tolist() == [expected.sys_len, expected.ref_len]


@pytest.mark.parametrize("language", PAIRS)
def test_repetition_counts_what_is_there_twice(language: str) -> None:
    outputs, _ = PAIRS[language]()
    expected = []
    for output in outputs:
        words = tokens(output, language)
        counts = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
        expected.append([sum(count - 1 for count in counts.values()), counts.total()])
    assert statistics(scorer("repetition", language), PAIRS[language]()).tolist() == expected


def test_exact_match_and_syntax_are_python_s_own_judgement() -> None:
    outputs, references = python_pairs()
    same = [output.strip() == target.strip() for output, target in zip(outputs, references, strict=True)]
    assert item_values(scorer("exact-match"), (outputs, references)).tolist() == same

    def parses(code: str) -> bool:
        try:
            return bool(compile(code, "output", "exec", ast.PyCF_ONLY_AST).body)
        except SyntaxError:
            return False

    flat = [output.startswith(" ") for output in outputs]  # what starts inside a function is judged another way
    values = item_values(scorer("syntax-pass-rate", "python"), (outputs, references))
    expected = [parses(output) for output in outputs]
    assert [value for value, skip in zip(values, flat, strict=True) if not skip] == [
        value for value, skip in zip(expected, flat, strict=True) if not skip]
    assert 20 < sum(expected) < 220


@pytest.mark.parametrize("k", [1, 2, 5])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(k: int) -> None:
    """By counting every choice of k of n samples, and by the formula as Chen et al. print it."""
    cases = [(n, c) for n in range(k, 8) for c in range(n + 1)]
    made = catalog.find("scorer", "pass-at-k")(k=k)
    found = made.aggregate(made.statistics({"num_samples": [n for n, _ in cases], "num_passed": [c for _, c in cases]}))
    for value, (n, c) in zip(found, cases, strict=True):
        choices = list(combinations([True] * c + [False] * (n - c), k))
        assert value == pytest.approx(sum(map(any, choices)) / len(choices))
        printed = 1.0 if n - c < k else 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))
        assert value == pytest.approx(printed, abs=1e-12)
    assert math.isnan(made.aggregate(made.statistics({"num_samples": [k - 1], "num_passed": [0]}))[0])
