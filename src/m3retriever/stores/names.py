"""Names of collections, the same for every engine."""

from __future__ import annotations

import re

from m3retriever.errors import InvalidArgumentError
from m3retriever.stores.database import DEFAULT_COLLECTION

ALIASES = {None: DEFAULT_COLLECTION, "m3": DEFAULT_COLLECTION}  # "m3" itself is too short for Chroma
COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,510}[A-Za-z0-9]")  # Chroma's own rule


def collection_name(given: str | None) -> str:
    """The name in the engine; the default for None. InvalidArgumentError for one that Chroma would refuse."""
    name = ALIASES.get(given, given)
    if not isinstance(name, str) or not COLLECTION_NAME.fullmatch(name):
        raise InvalidArgumentError(f"a collection name has 3 to 512 characters from [a-zA-Z0-9._-]; got {given!r}")
    return name
