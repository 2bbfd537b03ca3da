"""Filters as a person types them."""

from __future__ import annotations

import json

from m3retriever import InvalidFilterError
from m3retriever.filters import check_where
from m3retriever.types import Where


def parsed_filter(text: str) -> Where:
    """A filter in Chroma's language from JSON; InvalidFilterError says what is wrong with it."""
    try:
        where = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFilterError(f'a filter is JSON such as {{"lang": "en"}}; got {text[:80]!r} ({error})') from error
    if not isinstance(where, dict):
        raise InvalidFilterError(f'a filter is a JSON object such as {{"lang": "en"}}; got {text[:80]!r}')
    check_where(where)
    return where
