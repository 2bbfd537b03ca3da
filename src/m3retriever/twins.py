"""Async twins of methods that take time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_thread(method: Callable[..., Result]) -> Callable[..., Coroutine[Any, Any, Result]]:
    """The async twin of a method: the same call, in a thread, so that the event loop stays free.

    `asearch = in_thread(search)` in the body of a class; a subclass that overrides `search` overrides both.
    """
    name = method.__name__

    @wraps(method)
    async def twin(self: Any, /, *given: Any, **settings: Any) -> Result:
        result: Result = await asyncio.to_thread(getattr(self, name), *given, **settings)
        return result

    twin.__name__, twin.__doc__ = f"a{name}", f"`{name}`, in a thread."
    return twin
