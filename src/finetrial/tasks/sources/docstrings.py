"""Docstrings as text: unescaped, dedented, and taken apart into a summary paragraph and prose.

Written out here instead of taken from Python's `ast` and `inspect`, because these differ between Python versions and
the corpus must not.
"""

from __future__ import annotations

import re

ESCAPE = re.compile(r"\\(\n|.)", re.DOTALL)
ESCAPES = {"\n": "", "\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t"}
SECTION = re.compile(
    r"(?i)^(args|arguments|parameters|params|other parameters|keyword args|keyword arguments|inputs?|outputs?|returns?"
    r"|yields?|raises|warns|warnings?|notes?|examples?|usage|see also|references|attributes|methods|todo|tips?|shape)"
    r"\b[^.]{0,30}$"
)
NOT_PROSE = re.compile(r"^(\s|>>>|\.\. |\.\.\s*$|[-*+#|=~<`@\[\]]|:\w|\d+[.)]\s|\w+\s*:\s|```|\$)")
NOT_TOLD = re.compile(
    r">>>|```|(^|\n)\s*(\.\. |\.\.\s*$|[+|#=~<`@$]|\w+ = |def |class |import |from \w+ import |return )")
UNDERLINE = re.compile(r"^\s*([-=~^])\1{2,}\s*$")
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def unescape(text: str) -> str:
    """The value of a non-raw string literal's content, for the escapes that occur in prose; others stay as written."""
    if "\\" not in text:
        return text
    return ESCAPE.sub(lambda match: ESCAPES.get(match.group(1), match.group(0)), text)


def dedent(text: str) -> str:
    """The text without the indentation common to its lines after the first, and without blank lines around it."""
    lines = text.expandtabs().replace("\r\n", "\n").split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    lines = [lines[0].strip()] + [line[margin:].rstrip() for line in lines[1:]]
    return "\n".join(lines).strip("\n").strip()


def paragraphs(docstring: str) -> list[str]:
    """Blocks of a dedented docstring, separated by blank lines."""
    return [block.strip("\n") for block in re.split(r"\n\s*\n", docstring) if block.strip()]


def joined(paragraph: str) -> str:
    """A paragraph on one line, runs of whitespace as one space."""
    return " ".join(paragraph.split())


def num_words(text: str) -> int:
    """Words of letters, as a person counts them."""
    return len(WORD.findall(text))


def summary_and_prose(docstring: str) -> tuple[str, list[str]]:
    """The first paragraph on one line, and the prose paragraphs after it.

    Prose under any heading counts ("Notes", "Explanation", ...); lists, code, tables and parameters are left out.
    """
    blocks = paragraphs(docstring)
    if not blocks or starts_section(blocks[0]):
        return "", []
    prose = [joined(block) for block in map(without_heading, blocks[1:]) if is_prose(block)]
    return joined(blocks[0]), prose


def long_description(docstring: str) -> str:
    """Everything after the first paragraph that is told in words, on one line.

    Prose, list items, and what is said of parameters and results; headings, code, doctests, directives and tables are
    left out.
    """
    blocks = map(without_heading, paragraphs(docstring)[1:])
    return " ".join(joined(block) for block in blocks if is_told(block))


def without_heading(block: str) -> str:
    """The block without an underlined heading on top."""
    lines = block.split("\n", 2)
    if len(lines) > 1 and UNDERLINE.match(lines[1]):
        return lines[2] if len(lines) > 2 else ""
    return block


def starts_section(block: str) -> bool:
    """True if the block opens with a section heading (Google, NumPy or reStructuredText style)."""
    lines = block.split("\n")
    heading = lines[0].strip().rstrip(":")
    if len(lines) > 1 and UNDERLINE.match(lines[1]):
        return True
    return bool(SECTION.match(heading)) or lines[0].startswith((":param", ":return", ":type", ":raise", ">>>", "@"))


def is_prose(block: str) -> bool:
    """True for a flush-left paragraph of words: no list, code, directive, table or heading."""
    if NOT_PROSE.match(block) or "\n>>>" in block or "\n    " in block:
        return False
    letters = sum(character.isalpha() or character == " " for character in block)
    return num_words(block) >= 5 and letters >= 0.75 * len(block)


def is_told(block: str) -> bool:
    """True for a paragraph that consists of words, indented and listed ones too: no code, directive or table."""
    if NOT_TOLD.search(block):
        return False
    letters = sum(character.isalpha() or character == " " for character in joined(block))
    return num_words(block) >= 5 and letters >= 0.75 * len(joined(block))
