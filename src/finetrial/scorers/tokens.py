"""Words of text and tokens of code, for metrics that count them.

Text is tokenised as WMT does since mteval-v13a (sacrebleu's default, `13a`). Code goes through one small lexer for all
languages: names, numbers, operators (the longest first) and single characters, so that `a+=1` is three tokens and an
identifier is one, as in the pre-tokenised code of CodeXGLUE (Lu et al. 2021). The content of strings and comments is
lexed like code.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from finetrial.errors import MissingPackage

OPERATORS = (">>>=", "===", "!==", "**=", "//=", "<<=", ">>=", ">>>", "...", "&&=", "||=", "??=", "==", "!=", "<=",
             ">=", "=>", "->", ":=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "@=", "++", "--", "&&", "||",
             "??", "?.", "**", "//", "<<", ">>")
CODE_TOKEN = re.compile(r"[^\W\d][\w$]*|\$[\w$]*|\.?\d(?:[\w.]|(?<=[eE])[+-](?=\d))*|"
                        + "|".join(re.escape(operator) for operator in OPERATORS) + r"|\S")


def tokens(text: str, language: str) -> list[str]:
    """The tokens of a text (`language` "text") or of code (any other language), none of which holds a space."""
    if language == "text":
        words: list[str] = _tokenizer_13a()(text.rstrip()).split()
        return words
    return CODE_TOKEN.findall(text)


@functools.cache
def _tokenizer_13a() -> Any:
    try:
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    except ImportError as error:
        raise MissingPackage("sacrebleu", "the tokens of a text") from error
    return Tokenizer13a()


class Stemmer:
    """nltk's Porter stemmer with a memory: words recur, and stemming is most of what ROUGE and METEOR cost."""

    def __init__(self) -> None:
        try:
            from nltk.stem.porter import PorterStemmer
        except ImportError as error:
            raise MissingPackage("nltk", "stems (METEOR, ROUGE)") from error
        self.stem = functools.lru_cache(maxsize=1 << 16)(PorterStemmer().stem)


@functools.cache
def stemmer() -> Stemmer:
    """The one stemmer of a process."""
    return Stemmer()
