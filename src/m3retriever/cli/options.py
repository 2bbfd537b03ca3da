"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

PathOption = Annotated[Path, typer.Option("--path", help="Folder of the index.")]
CollectionOption = Annotated[Optional[str], typer.Option(help="Chroma collection.")]  # noqa: UP045  # typer reads it at run time
ModelOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="BAAI/bge-m3, mini, hashing or a folder; default: the index's own."),
]
ProfileOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="TOML file or name of a preset; default: profile.toml in the index's folder."),
]
ModeOption = Annotated[str, typer.Option(help="hybrid, dense, sparse or colbert.")]
WeightsOption = Annotated[Optional[str], typer.Option(help="dense,sparse,colbert, such as .4,.2,.4.")]  # noqa: UP045
WhereOption = Annotated[Optional[str], typer.Option(help='Filter in Chroma\'s language, such as \'{"lang": "en"}\'.')]  # noqa: UP045
WhereDocumentOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help='Filter over the text, such as \'{"$contains": "tax"}\'.'),
]
ThresholdOption = Annotated[Optional[str], typer.Option(help="Lowest score that counts: a number, or 'profile'.")]  # noqa: UP045
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
