"""From a LlamaIndex node to a Document of the index, and back to the same node.

A document keeps, beside the node's own metadata, what LlamaIndex's stores keep (`_node_content`,
`_node_type` and the id of the source document under three names), so that LlamaIndex's Chroma store
reads it too. `_node_content` is data that anyone with access to Chroma may have written: only known
classes are made from it, from their own fields, and what cannot be read is left aside. Its templates,
which LlamaIndex gives to `str.format`, are followed only where they can do no more than place the text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from string import Formatter
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument

from m3retriever.checks import check_documents
from m3retriever.errors import InvalidArgumentError, InvalidDocumentError, shown
from m3retriever.ingest import alike
from m3retriever.types import Document, Hit, Mode

logger = logging.getLogger(__name__)

CONTENT, TYPE, SOURCE = "_node_content", "_node_type", "ref_doc_id"
SOURCE_NAMES = ("document_id", "doc_id", SOURCE)  # LlamaIndex's stores read one or the other
BOOKKEEPING = (CONTENT, TYPE, *SOURCE_NAMES)
MAX_CONTENT = 1 << 24  # characters of `_node_content`; a node with an image inside it has a few millions
MAX_RELATED = 10_000  # nodes that a node is linked with
STORED_AS = "m3_stored_as"  # in `_node_content`: the metadata mode of the stored text, where that is not the node's own
METADATA_MODES = tuple(mode.value for mode in MetadataMode)
TEMPLATES = {  # the field that must be in it, the one that may, and how many characters at most
    "text_template": ("content", "metadata_str", 2000),
    "metadata_template": ("value", "key", 100),
}
SEPARATOR, MAX_SEPARATOR = "metadata_separator", 100  # characters
CLASSES: dict[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (TextNode, Node, IndexNode, ImageNode, LlamaDocument, ImageDocument)
}


class M3NodeWithScore(NodeWithScore):
    """A node with the score that ranked it, and beside it what that score came from.

    The node itself is as stored: scores in its metadata would change its hash and reach the prompt.

    Attributes
    ----------
    scores : the raw score in every mode
    ranks : the place (from 1) the node has when ranked by that mode alone
    found_by : the modes whose own search brought it in, sorted; empty where another retriever found it
    probability : of being relevant, where the profile holds a calibration
    """

    scores: dict[Mode, float]
    ranks: dict[Mode, int]
    found_by: list[Mode]
    probability: float | None = None

    @classmethod
    def class_name(cls) -> str:
        return "M3NodeWithScore"


def scored_node(hit: Hit) -> M3NodeWithScore:
    """A hit as LlamaIndex knows it."""
    return M3NodeWithScore(
        node=to_node(hit.document),
        score=hit.score,
        scores=dict(hit.scores),
        ranks=dict(hit.ranks),
        found_by=sorted(hit.found_by),
        probability=hit.probability,
    )


def listed_nodes(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    """The nodes as a list; InvalidArgumentError for what is none, and for one node alone."""
    if isinstance(nodes, BaseNode):
        raise InvalidArgumentError(f"add takes a list of nodes; got one {type(nodes).__name__}: write [node]")
    if not isinstance(nodes, Iterable) or isinstance(nodes, str | bytes):
        raise InvalidArgumentError(f"add takes a list of nodes; got {shown(nodes)}")
    nodes = list(nodes)
    if wrong := [one for one in nodes if not isinstance(one, BaseNode)]:
        raise InvalidDocumentError(f"add takes LlamaIndex's nodes; got {shown(wrong[0])} among them")
    return nodes


def to_document(node: BaseNode, *, metadata_mode: MetadataMode = MetadataMode.NONE) -> Document:
    """A node as the index stores it; the node is not changed.

    Its text is the node's content in `metadata_mode`. None and empty lists in the metadata, which Chroma
    cannot hold, count as absent for filters and come back with the node all the same.

    Raises
    ------
    InvalidDocumentError
        For metadata that Chroma cannot hold, such as a dict; it names the key and the node. Likewise for
        a template or for relationships that `to_node` would not take.
    """
    document = Document(node.node_id, node.get_content(MetadataMode.NONE), _filterable(node.metadata))
    check_documents([document])
    metadata = {**document.metadata, CONTENT: _content(node, metadata_mode), TYPE: node.class_name()}
    source = node.ref_doc_id or (node.node_id if isinstance(node, LlamaDocument) else None)
    if source is not None:  # a Document stored whole is its own source
        metadata.update(dict.fromkeys(SOURCE_NAMES, source))
    return Document(document.id, node.get_content(metadata_mode), metadata)


def to_node(document: Document) -> BaseNode:
    """The node that a document was made from; a TextNode for one that came another way.

    Text and metadata are the document's: where another client changed them since, they win over what
    `_node_content` says, so that a node always shows the metadata by which it was filtered. A node stored
    with its metadata in front has the text that, with them, makes up the document's.

    A template is taken where it places each field of LlamaIndex's at most once and does no more, and
    relationships where LlamaIndex can read them; else the node has LlamaIndex's defaults.
    """
    if CONTENT not in document.metadata:
        return TextNode(id_=document.id, text=document.text, metadata=dict(document.metadata))
    try:
        return _rebuilt(document)
    except Exception as error:  # noqa: BLE001  # it may be anything, and so may what it makes a class raise
        logger.debug("the %s of a document cannot be read: %s", CONTENT, type(error).__name__)
    return TextNode(id_=document.id, text=document.text, metadata=_held(document))


def _filterable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What filters see of a node's metadata. LlamaIndex's own names mean what LlamaIndex keeps there."""
    return {key: value for key, value in metadata.items() if key not in BOOKKEEPING and not _is_absent(value)}


def _held(document: Document) -> dict[str, Any]:
    return {key: value for key, value in document.metadata.items() if key not in BOOKKEEPING}


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, list) and not value)


def _content(node: BaseNode, metadata_mode: MetadataMode) -> str:
    """The node as JSON, without embedding, and without its text where the document holds just that."""
    try:
        kept = node.model_dump(mode="json")
        kept["embedding"] = None
        if kept.get("text_resource", "") is None:  # LlamaIndex would stumble over it
            del kept["text_resource"]
        if metadata_mode == MetadataMode.NONE:
            _take_text_out(kept)
        else:
            kept[STORED_AS] = MetadataMode(metadata_mode).value
        content = json.dumps(kept, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidDocumentError(f"node {node.node_id!r} cannot be written as JSON: {error}") from error
    _refuse_unfit(node.node_id, kept)
    if len(content) > MAX_CONTENT:
        raise InvalidDocumentError(
            f"node {node.node_id!r} has {len(content)} characters beside its text; at most {MAX_CONTENT} can be stored"
        )
    return content


def _take_text_out(kept: dict[str, Any]) -> None:
    if "text" in kept:
        kept["text"] = ""
    resource = kept.get("text_resource")
    if resource is not None and resource["text"] is not None:
        resource["text"] = ""


def _rebuilt(document: Document) -> BaseNode:
    content = document.metadata[CONTENT]
    if not isinstance(content, str) or len(content) > MAX_CONTENT:
        raise ValueError("not a JSON text of a node")
    kept = json.loads(content)
    kind = CLASSES.get(str(document.metadata.get(TYPE)), TextNode)
    node = _made(kind, {**kept, "id_": document.id, "embedding": None})
    if not _makes_up(document.text, node, kept.get(STORED_AS)):
        _put_text_in(node, document.text)
    if not _agree(_filterable(node.metadata), _held(document)):
        node.metadata = _held(document)
    node.model_dump_json()  # what is too deep to be written again would break whoever keeps or sends the node
    return node


def _makes_up(text: str, node: BaseNode, mode: Any) -> bool:
    """Whether the node's own text is part of this one, as it was stored: every template holds the text."""
    return mode in METADATA_MODES and node.get_content(MetadataMode(mode)) == text


def _made(kind: type[BaseNode], kept: Mapping[str, Any]) -> BaseNode:
    """A node of this class from its own fields alone: other keywords make some constructors fetch a URL."""
    unfit = dict(_unfit(kept))
    fields = {name: kept[name] for name in kind.model_fields if name in kept and name not in unfit}
    if kind is IndexNode:
        fields["obj"] = _inner(fields.get("obj"))
    return kind(**fields)


def _inner(kept: Any) -> Any:
    """What an IndexNode leads to, as `IndexNode.from_dict` reads it: a node, or a text."""
    if kept is None:
        return None
    if _is_node(kept):
        data = kept["__data__"]
        return _made(CLASSES.get(data["class_name"], TextNode), data)
    return TextNode(text=kept if isinstance(kept, str) else str(kept))


def _is_node(kept: Any) -> bool:
    return isinstance(kept, dict) and kept.keys() == {"__data__", "__type__"}


def _refuse_unfit(node_id: str, kept: Any) -> None:
    """InvalidDocumentError for a node, or a node it leads to, that would not come back as it is."""
    for name, wanted in _unfit(kept):
        raise InvalidDocumentError(f"node {node_id!r}: {name} must be {wanted}; got {str(kept[name])[:200]}")
    if _is_node(kept.get("obj")):
        _refuse_unfit(node_id, kept["obj"]["__data__"])


def _unfit(kept: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of a node's JSON that are not taken from it, with what they should be."""
    for name, (needed, further, most) in TEMPLATES.items():
        if name in kept and not _is_plain(kept[name], needed, further, most):
            yield name, f"at most {most} characters with {{{needed}}} once, {{{further}}} at most once, and no other field"
    separator = kept.get(SEPARATOR, "")
    if not isinstance(separator, str) or len(separator) > MAX_SEPARATOR:
        yield SEPARATOR, f"at most {MAX_SEPARATOR} characters"
    if not _are_links(kept.get("relationships", {})):
        yield "relationships", f"one node each, and a list of children, at most {MAX_RELATED}"


def _is_plain(template: Any, needed: str, further: str, most: int) -> bool:
    """Whether str.format does no more with a template than to put one field, or both, in its place.

    A format spec makes any length of text from one character (`{content:>999999999}`), an attribute or an
    index looks inside, an unknown field raises, and without the text in it the node would say another.
    """
    if not isinstance(template, str) or len(template) > most:
        return False
    try:
        fields = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError:
        return False
    plain = {(name, "", None) for name in (needed, further)}
    return (needed, "", None) in fields and plain.issuperset(fields) and len(set(fields)) == len(fields)


def _are_links(kept: Any) -> bool:
    """Whether LlamaIndex can read these relationships: `node.source_node` and its kin raise for the wrong shape."""
    if not isinstance(kept, dict):
        return False
    children = kept.get(NodeRelationship.CHILD.value, [])
    others = [link for name, link in kept.items() if name != NodeRelationship.CHILD.value]
    return isinstance(children, list) and len(children) <= MAX_RELATED and all(isinstance(link, dict) for link in others)


def _put_text_in(node: BaseNode, text: str) -> None:
    if not isinstance(node, Node):
        node.set_content(text)
    elif node.text_resource is None:
        if text:
            node.set_content(text)
    elif text or node.text_resource.text is not None:
        node.text_resource.text = text  # its mimetype, path and url stay


def _agree(own: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    """Whether a node and its document have the same metadata. LlamaIndex's Chroma store writes None as ""."""
    for key in own.keys() | held.keys():
        mine, theirs = own.get(key), held.get(key)
        if not (mine == theirs or alike(mine, theirs) or (key not in own and theirs == "")):
            return False
    return True
