"""METEOR without synonyms (Banerjee & Lavie 2005; parameters of Lavie & Agarwal 2007), mean over items.

nltk's `single_meteor_score` with an empty WordNet: words match exactly or by Porter stem. It is a stand-in: the real
METEOR also matches synonyms, so that paraphrases score lower here. Words come from nltk's `wordpunct_tokenize`.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from finetrial.errors import MissingPackage
from finetrial.scorers.outputs import OutputScorer
from finetrial.scorers.tokens import stemmer


class Meteor(OutputScorer):
    """Unigram F (recall weighs nine times) times 1 - 0.5 (chunks / matches)^3; identical texts stay just below 1."""

    packages: ClassVar[tuple[str, ...]] = ("nltk",)
    unit: ClassVar[str] = "METEOR"
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    summary: ClassVar[str] = "METEOR with stems, without synonyms (no WordNet)"

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """(METEOR, 1)."""
        meteor, words = _nltk()
        output, reference = (words(text) for text in texts)
        return float(meteor(reference, output, stemmer=stemmer(), wordnet=_NoSynonyms())), 1.0


class _NoSynonyms:
    """A WordNet in which no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        """None for any word."""
        return []


@functools.cache
def _nltk() -> tuple[Any, Any]:
    try:
        from nltk.tokenize import wordpunct_tokenize
        from nltk.translate.meteor_score import single_meteor_score
    except ImportError as error:
        raise MissingPackage("nltk", "METEOR") from error
    return single_meteor_score, wordpunct_tokenize
