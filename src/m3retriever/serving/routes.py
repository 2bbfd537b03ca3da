"""The endpoints: what each checks, which calls of the encoder it asks for, and which function makes its answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from m3retriever.index import M3Index
from m3retriever.serving import answers, schemas
from m3retriever.serving.batching import Call
from m3retriever.serving.bodies import StrictRoute
from m3retriever.serving.numbers import MEDIA_TYPE
from m3retriever.serving.opening import Served
from m3retriever.serving.refusals import Refused
from m3retriever.serving.service import Service
from m3retriever.types import MODES, Tokenizes

REASONS = {
    400: "The body is not what it should be.",
    401: "The key is missing or wrong.",
    404: "There is no such document.",
    408: "The body took too long to arrive.",
    409: "No index is served.",
    413: "More texts, characters or bytes than one request may have.",
    415: "The body is not said to be JSON.",
    421: "The name of the host is not this service's.",
    429: "Too many requests are waiting.",
    500: "Something that should not have happened.",
    501: "The model cannot do this.",
    503: "Not ready, no turn within the timeout, too many bytes of answers under way, or a store or model that is away.",
}
EVERYWHERE = (401, 421, 500)
ASKING = (400, 408, 413, 415, 429, 503)  # of every request with a body


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Error, "description": REASONS[status]} for status in sorted({*statuses, *EVERYWHERE})}


router = APIRouter(prefix="/v1", route_class=StrictRoute)
health = APIRouter(tags=["health"])


@router.post("/encode", response_model=schemas.EncodeResponse, responses=_errors(*ASKING), tags=["model"])
async def encode(body: schemas.EncodeRequest, request: Request) -> Response:
    """The dense, sparse and ColBERT vectors of texts; the same bits as the library's own encoder gives for this list."""
    service = _service(request)
    served = service.admit(request)
    _check_model(served, body)
    if body.modes is not None and body.encoding_format == "columns":
        raise Refused(400, "invalid_request", "modes go with encoding_format rows; columns hold all views")
    texts = [body.input] if isinstance(body.input, str) else body.input
    service.check_size(texts)
    if body.encoding_format == "rows" and "colbert" in (body.modes or MODES):
        service.check_rows(texts)
    [given] = await service.encode(request, Call(body.kind, tuple(texts)))
    service.make_room(request, answers.bytes_of(body, given.vectors))
    return await service.answer(request, answers.encoded, served, body, given)


@router.post("/tokenize", response_model=schemas.TokenizeResponse, responses=_errors(*ASKING, 501), tags=["model"])
async def tokenize(body: schemas.TokenizeRequest, request: Request) -> Response:
    """The tokens of a text, with the characters that each covers; each has a ColBERT vector."""
    service = _service(request)
    served = service.admit(request)
    _check_model(served, body)
    service.check_size([body.input])
    if not isinstance(served.encoder, Tokenizes):
        raise Refused(501, "not_supported", f"{served.encoder.name} has no tokens to show")
    return await service.answer(request, answers.tokenized, served, served.encoder.tokenize, body.input)


@router.post("/similarity", response_model=schemas.SimilarityResponse, responses=_errors(*ASKING), tags=["model"])
async def similarity(body: schemas.SimilarityRequest, request: Request) -> Response:
    """How alike the texts of each pair are, in every mode and fused, and what the profile says that it means.

    A pair scores as it would alone, whatever other pairs are in the request.
    """
    service = _service(request)
    served = service.admit(request)
    _check_model(served, body)
    service.check_size([text for pair in body.pairs for text in pair])
    calls = [call for query, document in body.pairs for call in (Call("query", (query,)), Call("document", (document,)))]
    return await service.answer(request, answers.compared, served, body.pairs, await service.encode(request, *calls))


@router.post("/search", response_model=schemas.SearchResponse, responses=_errors(*ASKING, 409), tags=["index"])
async def search(body: schemas.SearchRequest, request: Request) -> Response:
    """The best documents of the index, with every mode's score."""
    service = _service(request)
    served = service.admit(request)
    index = _index(served, body)
    service.check_size([body.query])
    [query] = await service.encode(request, Call("query", (body.query,)))
    return await service.answer(request, answers.found, index, body, query.vectors)


@router.post("/explain", response_model=schemas.ExplainResponse, responses=_errors(*ASKING, 404, 409), tags=["index"])
async def explain(body: schemas.ExplainRequest, request: Request) -> Response:
    """Why a document has the place it has for a query, or which stage cut it."""
    service = _service(request)
    served = service.admit(request)
    index = _index(served, body)
    service.check_size([body.query, body.id])
    [query] = await service.encode(request, Call("query", (body.query,)))
    return await service.answer(request, answers.explained, index, body, query.vectors)


@router.post("/rerank", response_model=schemas.RerankResponse, responses=_errors(*ASKING), tags=["model"])
async def rerank(body: schemas.RerankRequest, request: Request) -> Response:
    """Texts in the order of their scores for a query, best first. Scored exactly; nothing is stored."""
    service = _service(request)
    served = service.admit(request)
    _check_model(served, body)
    service.check_size([body.query, *body.documents])
    calls = Call("query", (body.query,)), Call("document", tuple(body.documents))
    query, documents = await service.encode(request, *calls)
    return await service.answer(request, answers.reranked, served, body, query.vectors, documents.vectors)


@router.post("/embeddings", response_model=schemas.EmbeddingsResponse, responses=_errors(*ASKING), tags=["model"])
async def embeddings(body: schemas.EmbeddingsRequest, request: Request) -> Response:
    """Dense vectors, for clients of OpenAI's API."""
    service = _service(request)
    served = service.admit(request)
    _check_model(served, body)
    if body.dimensions not in (None, served.encoder.dim):
        raise Refused(400, "invalid_request", f"this model's vectors have {served.encoder.dim} dimensions: leave it out")
    texts = [body.input] if isinstance(body.input, str) else body.input
    service.check_size(texts)
    [given] = await service.encode(request, Call("document", tuple(texts)))
    return await service.answer(request, answers.embedded, served, body, given.vectors)


@router.get("/models", response_model=schemas.Models, responses=_errors(503), tags=["model"])
async def models(request: Request) -> Any:
    """The model that is served, and how much one request may hold."""
    service = _service(request)
    encoder, precision, limits = service.served.encoder, service.served.precision, service.settings
    about = {"id": encoder.name, "object": "model", "created": 0, "owned_by": "m3retriever", "dim": encoder.dim}
    more = {"precision": precision, "max_length": getattr(encoder, "max_length", None)}
    bounds = {"texts": limits.max_texts, "characters": limits.max_characters}
    return {"object": "list", "data": [{**about, **more, "limits": bounds}]}


@health.head("/healthz", include_in_schema=False)
@health.get("/healthz", response_model=schemas.Status, responses=_errors())
async def healthz() -> Any:
    """Whether the process answers at all."""
    return {"status": "alive"}


@health.head("/readyz", include_in_schema=False)
@health.get("/readyz", response_model=schemas.Status, responses=_errors(503))
async def readyz(request: Request) -> Any:
    """Whether requests are welcome: not while the model is loaded, and not while the service ends."""
    state = _service(request).state
    if state != "ready":
        words = "the model is being loaded" if state == "loading" else "the service is ending"
        raise Refused(503, "not_ready", words, retry_after=2)
    return {"status": "ready"}


@health.get("/metrics", response_class=PlainTextResponse, responses=_errors())
async def metrics(request: Request) -> Response:
    """Counters and histograms in Prometheus' text format."""
    service = _service(request)
    return Response(service.numbers.as_prometheus(**service.gauges()), media_type=MEDIA_TYPE)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _check_model(served: Served, body: schemas.Incoming) -> None:
    if not served.is_called(body.model):
        raise Refused(400, "wrong_model", f"the model served here is {served.encoder.name!r}: name it, or leave model out")


def _index(served: Served, body: schemas.Incoming) -> M3Index:
    _check_model(served, body)
    if served.index is None:
        raise Refused(409, "no_index", "no index is served here: start the service with --path INDEX")
    return served.index
