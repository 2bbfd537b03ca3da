"""What every page needs: the open index, its project, the sidebar's settings, words and colours."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from m3retriever import M3Index, Profile, Weights
from m3retriever.inspector import state
from m3retriever.inspector.analysis.settings import with_settings
from m3retriever.inspector.i18n import Translate, translator
from m3retriever.inspector.project import Project
from m3retriever.inspector.retrieval import open_index
from m3retriever.inspector.source import Source
from m3retriever.palette import Palette


@dataclass(frozen=True)
class Page:
    """One run of one page.

    Attributes
    ----------
    weights : of the sidebar
    threshold : of the hybrid; None where the fusion has none
    profile : the index's own with the sidebar's settings
    """

    index: M3Index
    source: Source
    project: Project
    weights: Weights
    threshold: float | None
    k: int
    profile: Profile
    t: Translate
    palette: Palette


def current() -> Page:
    """The page that runs now; the frame has opened the index, and runs no page while all weights are 0."""
    source = Source.from_arguments(sys.argv[1:])
    index = open_index(source)
    own = index.profile
    chosen = state.settings(own)
    weights = chosen.weights or own.weights
    return Page(
        index=index,
        source=source,
        project=Project.of(source),
        weights=weights,
        threshold=chosen.threshold,
        k=chosen.k,
        profile=with_settings(own, weights, chosen.threshold),
        t=translator(state.language()),
        palette=state.palette(),
    )
