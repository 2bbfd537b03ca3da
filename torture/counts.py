"""What a long run came to: printed, and kept as a line of JSON for the README's table."""

from __future__ import annotations

import json
import os
from pathlib import Path

REPORT = Path(os.environ.get("M3_TORTURE_REPORT", "build/torture.json"))


def count(name: str, **numbers: float) -> None:
    """Say what a run named `name` did: how many rounds, cases, documents, and how many failed."""
    line = json.dumps({"name": name, "counts": numbers})
    print(line, flush=True)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    with REPORT.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
