"""The commands that look whether an index is whole, and mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from m3retriever.cli.opening import existing
from m3retriever.cli.options import CollectionOption, JsonOption, ModelOption, PathOption
from m3retriever.cli.terminal import progress, show

if TYPE_CHECKING:
    from m3retriever.stores.verify import Verdict

SHOWN = 5  # ids of a finding


def verify(path: PathOption, collection: CollectionOption = None, as_json: JsonOption = False) -> None:
    """Read all of an index, and say whether it is what was written; exit code 1 where it is not."""
    from m3retriever import health

    existing(path, collection)
    with progress("verifying") as advance:
        verdict = health.verify(path, collection, on_step=advance)
    show(_content(verdict), _words(verdict), as_json=as_json)
    raise typer.Exit(0 if verdict.whole else 1)


def repair(
    path: PathOption, model: ModelOption = None, collection: CollectionOption = None, as_json: JsonOption = False
) -> None:
    """Mend what `verify` finds: vectors are encoded again from the texts, the rest is taken from the whole copy."""
    from m3retriever import health

    existing(path, collection)
    with progress("verifying") as advance:
        before, after = health.repair(path, collection, model=model, on_step=advance)
    found = "found:\n" + _words(before) + "\n" if not before.whole else ""
    show({"before": _content(before), "after": _content(after)}, f"{found}now:\n{_words(after)}", as_json=as_json)
    raise typer.Exit(0 if after.whole else 1)


def _content(verdict: Verdict) -> dict[str, Any]:
    findings = [{"problem": one.problem, "ids": list(one.ids), "message": str(one)} for one in verdict.findings]
    return {"whole": verdict.whole, "documents": verdict.documents, "values": verdict.values, "findings": findings}


def _words(verdict: Verdict) -> str:
    if verdict.whole:
        return f"whole: {verdict.documents:,} documents, {verdict.values:,} values, each as it was written"
    lines = []
    for one in verdict.findings:
        shown = ", ".join(map(repr, one.ids[:SHOWN])) + (", ..." if len(one.ids) > SHOWN else "")
        lines.append(f"{one.problem}: {one}{f': {shown}' if shown else ''}")
    return "\n".join(lines)
