"""What kind of question a query is, read off its characters: what fusions whose weights depend on the query go by.

Heuristics, not a model: they cost microseconds, they can be read, and tuning says whether they help. Only the
first HEAD characters are read. English and Chinese questions are known by their words; other languages by marks
and length (one without blanks, such as Thai, passes for keywords).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np

from m3retriever.vectors import FloatArray

Kind = Literal["code", "keywords", "sentence", "foreign"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FEATURES = ("words", "digits", "symbols", "capitals", "codelike", "quoted", "asking", *KINDS)

HEAD = 2_000  # characters: the head says the kind, and a pasted file costs no more than this
CODE_WORDS = 8  # of blank-separated words: longer queries describe code rather than quote it
CODE_SHARE = 0.5  # of the length in words
SYMBOL_SHARE = 0.15  # of the signs that are no blanks; prose has none of these symbols
LONG = 10  # words: nobody lists that many keywords
PHRASE = 4  # words: from here on function words make a sentence
FUNCTION_SHARE = 0.25  # of the words; English prose has about 0.4
FUNCTION_SIGN_SHARE = 0.1  # of the signs, in Chinese
SIGNS_PER_WORD = 2  # of Chinese and Japanese, on average
WEIGHT_OF_SIGN = 3  # one of their signs says as much as three letters, when scripts are mixed
MANY_WORDS = 64  # where the feature "words" reaches 1

SIGN = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
SIGNS = re.compile(SIGN)
BETWEEN = re.compile(rf"(?:\s|{SIGN})+")
AROUND = ".,;:!?\"'“”‘’«»…、，。！？；：「」『』（）()"
SYMBOLS = re.compile(r"[\\<>={}\[\]|@#$^*~`_&+%]")
QUOTED = re.compile(r"\"[^\"]+\"|“[^”]+”|「[^」]+」|«[^»]+»")
ENDS_SENTENCE = re.compile(r"[.!?。！？؟]\W*$")
MEASURED = re.compile(r"\d+[a-z]{1,2}")  # 4th, 10pm, 5kg: a number with its unit
CODELIKE = re.compile(
    r"""
    (?=.*\d)(?=.*[^\W\d_]).+            # letters and digits in one word: E1234, utf8, AB-12
    | .*[a-z][A-Z]                      # camelCase, TypeError
    | .*_ | .*\(\)                      # snake_case, call()
    | .*[\\<>={}\[\]|@^`] | .*\#$       # a[0], x=1, user@host, C#
    | .*(?:::|->|://|&&) | / | --?\w\w  # std::sort, a path, a flag
    | .*\w\w\.\w\w                      # os.path, notes.txt
    | .*\d\.\d+\.\d | .*\d-\d+-\d       # 1.2.3, 978-3-16
    | \d{5}                             # a number that counts nothing: an id
    """,
    re.VERBOSE,
)
ASKING_FIRST = frozenset(
    ["can", "could", "do", "does", "did", "is", "are", "was", "were", "should", "would", "will", "may", "am", "has", "have"]
)
ASKING = frozenset(
    ["what", "what's", "who", "who's", "whom", "whose", "when", "where", "where's", "why", "how", "how's", "which"]
)
ASKING_SIGNS = re.compile(
    "什[么麼]|甚麼|怎[么麼样樣]|(?<!任)何|哪|[谁誰]|[几幾][个個年次天种種位人月]|多[少大久长長高]|[吗嗎呢][?？]?$"
    "|是否|是不是|[能可]否|どこ|なぜ|いつ|だれ|どう|ですか|ますか"
)
FUNCTION_WORDS = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "in",
        "on",
        "to",
        "for",
        "with",
        "and",
        "or",
        "is",
        "are",
        "was",
        "be",
        "been",
        "my",
        "i",
        "you",
        "it",
        "we",
        "he",
        "she",
        "they",
        "this",
        "that",
        "from",
        "by",
        "at",
        "as",
        "not",
        "i'm",
        "me",
        "your",
        "if",
        "there",
        "has",
        "have",
        "do",
        "does",
        "can",
        "will",
        "would",
        "should",
    ]
)
FUNCTION_SIGNS = re.compile("[的了是在有被将將就都和与與把给給吧着著也这這那我你他她]")


def kind_of(query: str, *, script: str = "") -> Kind:
    """Whether a query quotes code, lists keywords, is a sentence, or is in a script other than the usual one.

    Asked in this order: "code" is short and half of it or more are ids, versions, paths or identifiers, or it is
    full of symbols; "foreign" has another main script than `script`, where both are known; "sentence" asks, ends
    like a sentence, has function words or is long; what remains is "keywords", the empty query too.
    """
    head = _head(query)
    words = _words(head)
    if _is_code(head, words):
        return "code"
    if script and script_of(query) not in ("", script):
        return "foreign"
    return "sentence" if _is_sentence(head, words) else "keywords"


def features(query: str, *, script: str = "") -> FloatArray:
    """What can be said of a query in numbers, named by FEATURES: (f,) float64, each in [0, 1].

    The length in words (a logarithm, 1 from MANY_WORDS on), the shares of digits, symbols, capitals and words that
    look like code, whether something is quoted and whether it asks, and 1 for its kind.
    """
    head = _head(query)
    words = _words(head)
    kind = kind_of(query, script=script)
    letters = [char for char in head if char.isalpha()]
    return np.array([
        min(1.0, math.log1p(_length(head, words)) / math.log1p(MANY_WORDS)),
        _share(sum(char.isdigit() for char in head), _filled(head)),
        _symbol_share(head),
        _share(sum(char.isupper() for char in letters), len(letters)),
        _code_share(head, words),
        QUOTED.search(head) is not None,
        _asks(head, words),
        *(kind == one for one in KINDS),
    ], np.float64)  # fmt: skip


def script_of(query: str) -> str:
    """The script that most of a query is written in, such as "latin", "han" or "cyrillic"; "" without letters.

    By Unicode's names of its letters. Japanese is "kana", whatever its share of Chinese signs.
    """
    counts = Counter(_script(char) for char in _head(query) if char.isalpha())
    for name in ("han", "kana"):
        counts[name] *= WEIGHT_OF_SIGN
    most = max(sorted(counts), key=lambda name: counts[name])
    return "kana" if most == "han" and counts["kana"] else most if counts[most] else ""


def usual_script(queries: Iterable[str]) -> str:
    """The script that most queries are written in; the alphabetically first of equals, "" where none has letters."""
    counts = Counter(script for query in queries if (script := script_of(query)))
    return max(sorted(counts), key=lambda name: counts[name], default="")


def _head(query: str) -> str:
    return unicodedata.normalize("NFKC", query[:HEAD])[:HEAD].strip()


def _script(char: str) -> str:
    """The first word of a letter's name, which is its script."""
    name = unicodedata.name(char, "OTHER").split()[0].split("-")[0].lower()
    return {"cjk": "han", "hiragana": "kana", "katakana": "kana", "katakana-hiragana": "kana"}.get(name, name)


def _words(head: str) -> list[str]:
    """What stands between blanks and Chinese or Japanese signs."""
    return [word for word in BETWEEN.split(head) if word]


def _length(head: str, words: list[str]) -> float:
    """In words; signs that are written without blanks count as SIGNS_PER_WORD."""
    return len(words) + len(SIGNS.findall(head)) / SIGNS_PER_WORD


def _is_code(head: str, words: list[str]) -> bool:
    short = 0 < _length(head, words) <= CODE_WORDS
    return short and (_code_share(head, words) >= CODE_SHARE or _symbol_share(head) >= SYMBOL_SHARE)


def _is_sentence(head: str, words: list[str]) -> bool:
    length = _length(head, words)
    if length >= LONG or _asks(head, words) or (length >= PHRASE and ENDS_SENTENCE.search(head)):
        return True
    function_words = sum(word.strip(AROUND).lower() in FUNCTION_WORDS for word in words)
    signs = len(SIGNS.findall(head))
    prose = _share(function_words, len(words)) >= FUNCTION_SHARE
    return length >= PHRASE and (prose or _share(len(FUNCTION_SIGNS.findall(head)), signs) >= FUNCTION_SIGN_SHARE)


def _asks(head: str, words: list[str]) -> bool:
    """Whether it has a question mark, or an English or Chinese question word where one stands in a question."""
    first = [word.strip(AROUND).lower().replace("’", "'") for word in words[:3]]
    asking = first[:1] and (first[0] in ASKING_FIRST or not ASKING.isdisjoint(first))
    return bool(asking) or "?" in head[-3:] or "؟" in head[-3:] or ASKING_SIGNS.search(head) is not None


def _code_share(head: str, words: list[str]) -> float:
    return sum(map(_is_codelike, words)) / (_length(head, words) or 1)


def _is_codelike(word: str) -> bool:
    bare = word.strip(AROUND)
    kept = bare + "()" if "()" in word else bare
    return CODELIKE.match(kept) is not None and MEASURED.fullmatch(bare) is None


def _symbol_share(head: str) -> float:
    return _share(len(SYMBOLS.findall(head)), _filled(head))


def _filled(head: str) -> int:
    return sum(not char.isspace() for char in head)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
