"""The app's own words in each language: flat tables in `locale/<language>/`, a file for each page, one key a line."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Protocol

LANGUAGES = {"en": "English", "zh": "中文"}
FALLBACK = "en"
LOCALE = Path(__file__).with_name("locale")


class Translate(Protocol):
    """Gives a key's words, with the named values filled in."""

    def __call__(self, key: str, /, **values: object) -> str: ...


@cache
def table(language: str) -> dict[str, str]:
    """A language's words by key."""
    words: dict[str, str] = {}
    for path in sorted((LOCALE / language).glob("*.json")):
        words |= json.loads(path.read_text(encoding="utf-8"))
    return words


def translator(language: str) -> Translate:
    """The function that turns keys into this language's words."""
    words = table(language)

    def translate(key: str, /, **values: object) -> str:
        return words[key].format(**values)

    return translate


def language_of(locale: str | None) -> str:
    """The language for a browser's locale: "zh" for zh-CN, English for one that is not here."""
    language = (locale or "").split("-")[0].lower()
    return language if language in LANGUAGES else FALLBACK
