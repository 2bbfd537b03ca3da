"""The command that serves a model, and an index, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from m3retriever.cli.opening import existing
from m3retriever.cli.options import BackendOption, CollectionOption, ModelOption, PrecisionOption, ProfileOption
from m3retriever.cli.terminal import say


def serve(
    path: Annotated[
        Optional[str],  # noqa: UP045  # typer reads it at run time
        typer.Option("--path", help="Folder or server of the index to search; default: none."),
    ] = None,
    model: ModelOption = None,
    model_precision: PrecisionOption = None,
    backend: BackendOption = None,
    collection: CollectionOption = None,
    profile: ProfileOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the service; 0 takes a free one.")] = 7860,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Permit an address that other machines reach.")] = False,
    read_only: Annotated[
        bool,
        typer.Option(help="Change nothing in the index; without it, documents of other clients are encoded at the start."),
    ] = True,
    batching: Annotated[
        str, typer.Option(help="exact: the library's own bits. joined: requests always share passes; last bits may differ.")
    ] = "exact",
    max_batch: Annotated[int, typer.Option(help="Texts of different requests in one pass.")] = 64,
    batch_wait_ms: Annotated[float, typer.Option(help="Milliseconds that a shared pass waits for more requests.")] = 2.0,
    queue: Annotated[int, typer.Option(help="Requests waiting or being answered; the next is refused (429).")] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may wait for its turn.")] = 30.0,
    refresh: Annotated[
        float, typer.Option(help="Seconds between looks at what other clients of a Chroma server have changed; 0: none.")
    ] = 60.0,
    max_texts: Annotated[int, typer.Option(help="Texts of one request.")] = 256,
    max_characters: Annotated[int, typer.Option(help="Characters of one request.")] = 200_000,
) -> None:
    """Serve the model, and with --path an index, over HTTP. A key in M3RETRIEVER_API_KEY is asked of every client."""
    from m3retriever.serving.launch import serve as serve_until_signalled
    from m3retriever.serving.opening import Source
    from m3retriever.serving.settings import Settings

    if path is not None:
        existing(path, collection)
    limits: dict[str, Any] = {
        "max_texts": max_texts,
        "max_characters": max_characters,
        "queue": queue,
        "timeout": timeout,
        "refresh": refresh,
    }
    waiting: dict[str, Any] = {"batching": batching, "max_batch": max_batch, "batch_wait": batch_wait_ms / 1000}
    serve_until_signalled(
        Source(path, model, model_precision, backend, collection, profile, read_only),
        Settings(**limits, **waiting),
        host=host,
        port=port,
        allow_remote=allow_remote,
        on_listening=lambda url: say(f"listening on {url} (Ctrl-C ends it)"),
    )
