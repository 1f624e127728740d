"""What the ROUGE metrics share: rouge_score's F1 of one kind, with Porter stems, mean over items.

ROUGE: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries". rouge_score reproduces ROUGE-1.5.5 with `-m`:
lower case, letters a-z and digits only, words of more than three letters stemmed.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from finetrial.errors import MissingPackage
from finetrial.scorers.outputs import OutputScorer
from finetrial.scorers.tokens import stemmer


class Rouge(OutputScorer):
    """F1 of one kind of ROUGE. A reference in which ROUGE sees nothing to find is not judged."""

    packages: ClassVar[tuple[str, ...]] = ("nltk", "rouge-score")
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    kind: ClassVar[str]  # rouge_score's name: "rouge1", "rougeL", ...
    fewest_words: ClassVar[int] = 1  # of the reference

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """(F1, 1)."""
        output, reference = texts
        scorer, tokenizer = _scorer(self.kind)
        if len(tokenizer.tokenize(reference)) < self.fewest_words:
            return None
        return float(scorer.score(reference, output)[self.kind].fmeasure), 1.0


class Tokenizer:
    """rouge_score's tokens with Porter stems, remembered by text: several kinds and many arms read the same ones."""

    def __init__(self) -> None:
        from rouge_score.tokenize import tokenize

        self.tokenize = functools.lru_cache(maxsize=1 << 14)(functools.partial(tokenize, stemmer=stemmer()))


@functools.cache
def _tokenizer() -> Tokenizer:
    return Tokenizer()


@functools.cache
def _scorer(kind: str) -> tuple[Any, Tokenizer]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingPackage("rouge_score", "ROUGE") from error
    return RougeScorer([kind], tokenizer=_tokenizer()), _tokenizer()
