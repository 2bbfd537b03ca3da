"""The library's log as lines of JSON, for whoever asks: the library itself sets up no logging."""

from __future__ import annotations

import json
import logging
import math
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

from m3retriever.errors import InvalidArgumentError

LOGGER = "m3retriever"
LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
OFF = "off"
OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}  # what every record has, in every Python


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, what the call gave as `extra`, and the traceback
    where there is one. What a process's own record factory adds is there too, but for names with an underscore in front,
    which are its own business (Ray adds one as soon as it is imported)."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII and without line breaks, whatever the message holds."""
        extra = {name: value for name, value in vars(record).items() if name not in OWN and name[0] != "_"}
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({**{name: _plain(value) for name, value in extra.items()}, **line})


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that `configure_logging` has put there; it knows how the logger was set before."""

    def __init__(self, stream: TextIO, before: tuple[int, bool]) -> None:
        super().__init__(stream)
        self.before = before


def configure_logging(level: str = "info", *, json: bool = True, stream: TextIO | None = None) -> None:
    """Write what the library's loggers say to a stream, a line each.

    Calling it again replaces what an earlier call set up. The lines do not go to the root logger's handlers as well.

    Parameters
    ----------
    level
        "debug" (which includes the time of every step), "info", "warning", "error", "critical"; "off" leaves all as it was
        before the first call.
    json
        JSON lines, or plain ones.
    stream
        Default: stderr.
    """
    if level not in (*LEVELS, OFF):
        raise InvalidArgumentError(f"level must be one of {', '.join((*LEVELS, OFF))}; got {level!r}")
    logger = logging.getLogger(LOGGER)
    before = logger.level, logger.propagate
    for old in [one for one in logger.handlers if isinstance(one, _Handler)]:
        before = old.before
        logger.removeHandler(old)
    own_level, propagates = before
    logger.propagate = propagates and level == OFF
    logger.setLevel(LEVELS.get(level, own_level))
    if level != OFF:
        handler = _Handler(stream if stream is not None else sys.stderr, before)
        handler.setFormatter(JsonLines() if json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)


def _plain(value: Any) -> Any:
    """What JSON can say: a number, a truth value, None, or else a text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
