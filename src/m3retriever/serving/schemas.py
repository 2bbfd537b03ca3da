"""What comes in and what goes out, as OpenAPI shows it. What comes in is strict: of the right type, and nothing unknown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from m3retriever.types import Mode

MOST_HITS = 1_000  # of a search
ONE_TEXT = "a text or a list of texts; token ids are of another model and mean nothing here"

Kind = Literal["document", "query"]
SearchMode = Literal["hybrid", "dense", "sparse", "colbert"]
Scores = dict[Mode, float]


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [fields]})


class Incoming(BaseModel):
    """A body; every one may name the model that it means."""

    model_config = _example()

    model: str | None = Field(None, description="The model that is meant: another than the one served is refused.")


class EncodeRequest(Incoming):
    """Texts to be encoded."""

    model_config = _example(input=["the lease ends on 30 June", "rent"], kind="document", encoding_format="columns")

    input: str | list[str] = Field(description="One text, or several; a list is one call of the encoder.")
    kind: Kind = Field("document", description="BGE-M3 encodes both alike; other models may not.")
    modes: list[Mode] | None = Field(None, min_length=1, description="Views to send, with rows only; all by default.")
    encoding_format: Literal["rows", "columns"] = Field(
        "rows", description='"rows": numbers, a text after the other. "columns": arrays as base64, compact and quick.'
    )


class TokenizeRequest(Incoming):
    """A text to be cut into the model's tokens."""

    model_config = _example(input="the red fox")

    input: str


class SimilarityRequest(Incoming):
    """Pairs of a query and a document."""

    model_config = _example(pairs=[["when does the lease end", "the lease ends on 30 June"]])

    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(min_length=1)


class Searching(Incoming):
    """What a search and an explanation take."""

    query: str
    k: int = Field(10, ge=1, le=MOST_HITS, description="Hits wanted.")
    mode: SearchMode = "hybrid"
    weights: dict[Mode, float] | Annotated[list[float], Field(min_length=3, max_length=3)] | None = Field(
        None, description="Of dense, sparse and colbert, for this call; with mode hybrid only."
    )
    threshold: float | str | None = Field(
        None, description='The lowest score that counts: a number, "profile", "p>=0.7" or "fpr<=0.01".'
    )
    where: dict[str, Any] | None = Field(None, description="Chroma's filter language over metadata.")
    where_document: dict[str, Any] | None = Field(None, description="Chroma's filter language over texts.")


class SearchRequest(Searching):
    """A question to the index."""

    model_config = _example(query="when does the lease end", k=3, where={"tenant": "a"})


class ExplainRequest(Searching):
    """A question about one document's place."""

    model_config = _example(query="when does the lease end", id="lease")

    id: str = Field(description="Of the document.")


class RerankRequest(Incoming):
    """Texts that some other search found."""

    model_config = _example(query="when is the rent due", documents=["The cat sleeps.", "Rent is due on the third."], top_n=1)

    query: str
    documents: list[str] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1, le=2**31 - 1, description="How many to send back; all by default.")
    return_documents: bool = False


class EmbeddingsRequest(Incoming):
    """As OpenAI's, of dense vectors only."""

    model_config = _example(input=["the red fox"], encoding_format="float")

    input: str | Annotated[list[str], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="May be given where it is the model's own.")
    user: str | None = Field(None, description="Taken because OpenAI's clients may send it; nothing is done with it.")

    @field_validator("input", mode="before")
    @classmethod
    def _no_token_ids(cls, given: Any) -> Any:
        numbers = isinstance(given, list) and any(isinstance(one, int | list) for one in given)
        if numbers:
            raise ValueError(ONE_TEXT + " (LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)")
        return given


# -- what goes out ---------------------------------------------------------------------------------


class ErrorBody(BaseModel):
    """What was wrong."""

    message: str
    type: str


class Error(BaseModel):
    """Every error."""

    error: ErrorBody


class Status(BaseModel):
    """How the service is."""

    status: Literal["alive", "ready"]


class Row(BaseModel):
    """The views of one text."""

    dense: list[float] | None = None
    sparse: dict[str, float] | None = Field(None, description="Weights by token id.")
    colbert: list[list[float]] | None = None


class Column(BaseModel):
    """An array."""

    dtype: str = Field(description="Little-endian, such as <f4.")
    shape: list[int]
    data: str = Field(description="Its bytes in base64.")


class EncodeResponse(BaseModel):
    """The views of n texts, as rows or as columns."""

    model: str
    dim: int
    precision: str | None
    n: int
    encoding_format: Literal["rows", "columns"]
    data: list[Row] | None = None
    vectors: dict[str, Column] | None = None
    truncated: int = Field(description="How many texts were longer than the model reads.")


class TokenOut(BaseModel):
    """A token: the characters text[start:end]."""

    id: int
    start: int
    end: int


class TokenizeResponse(BaseModel):
    """Tokens that have a ColBERT vector, in order."""

    model: str
    tokens: list[TokenOut]


class PairOut(BaseModel):
    """What a pair scores, and what the profile says that it means."""

    scores: Scores
    score: float = Field(description="Fused as the profile says.")
    probability: float | None = Field(description="Of being relevant; null without a calibration.")
    level: str | None = Field(description="unrelated, weak, related or nearly identical; null without a calibration.")
    relevant: bool | None = Field(description="Whether the score reaches the profile's threshold; null where it has none.")


class SimilarityResponse(BaseModel):
    """A result for each pair, in order."""

    model: str
    results: list[PairOut]


class HitOut(BaseModel):
    """A document in a ranking."""

    rank: int
    id: str
    score: float
    scores: Scores
    ranks: dict[Mode, int]
    found_by: list[Mode]
    probability: float | None = None
    text: str
    metadata: dict[str, Any]


class SearchResponse(BaseModel):
    """As `m3retriever search --json`."""

    query: str
    mode: SearchMode
    weights: Scores
    hits: list[HitOut]


class ExplainResponse(BaseModel):
    """As `m3retriever explain --json`."""

    query: str
    document: dict[str, Any]
    stage: str
    score: float | None
    rank: int | None
    scores: Scores
    contributions: Scores
    ranks: dict[Mode, int]
    found_by: list[Mode]
    best: float | None
    last: float | None
    threshold: float | str | None
    shared_tokens: list[dict[str, Any]]
    deeper: dict[str, Any] | None
    advice: str


class Ranked(BaseModel):
    """One of the texts, scored."""

    index: int = Field(description="Where it stood among the documents that came, from 0.")
    relevance_score: float
    scores: Scores
    probability: float | None
    document: str | None = None


class RerankResponse(BaseModel):
    """The best first."""

    model: str
    results: list[Ranked]


class Embedding(BaseModel):
    """The dense vector of one text: numbers, or float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that have a vector."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """As OpenAI's."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Limits(BaseModel):
    """Of one request."""

    texts: int
    characters: int


class Model(BaseModel):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    dim: int
    precision: str | None
    max_length: int | None
    limits: Limits


class Models(BaseModel):
    """The one model."""

    object: Literal["list"]
    data: list[Model]
