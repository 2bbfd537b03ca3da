"""A node becomes a document and the same node again; what anyone else wrote never breaks or runs anything."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from m3retriever import ChromaStore, Document, HashingEncoder, InvalidDocumentError, M3Index
from m3retriever.llama_index import to_document, to_node
from m3retriever.llama_index.nodes import MAX_CONTENT, MAX_RELATED

METADATA = {"z": 1, "a": "x", "f": 2.0, "yes": True, "none": None, "empty": [], "blank": "", "words": ["b", "a"], "n": [1, 2]}
LINKS: dict[Any, Any] = {
    NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc", node_type="4", metadata={"deep": {"er": [1, "x"]}}, hash="abc"),
    NodeRelationship.NEXT: RelatedNodeInfo(node_id="after"),
    NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2")],
}
COMMON: dict[str, Any] = {"id_": "one", "metadata": METADATA, "relationships": LINKS, "excluded_llm_metadata_keys": ["z"]}
LLAMA_INDEX = TextNode()  # what LlamaIndex has where nothing is given
NODES = [
    TextNode(text="red apple", start_char_idx=3, end_char_idx=12, metadata_template="{key}={value}", **COMMON),
    TextNode(text="", **COMMON),
    TextNode(text="only text"),
    TextNode(
        text=" red {apple} \n", text_template="{metadata_str}\n--\n{{as is}} {content}", metadata_separator=" | ", **COMMON
    ),
    Node(text_resource=MediaResource(text="red apple", mimetype="text/markdown", path=Path("a.md")), **COMMON),
    Node(text_resource=MediaResource(text=""), image_resource=MediaResource(url="https://a.b/c.png"), **COMMON),  # type: ignore[arg-type]
    Node(image_resource=MediaResource(path=Path("c.png")), **COMMON),
    LlamaDocument(text="red apple", id_="doc", metadata=METADATA),
    LlamaDocument(id_="nothing"),
    ImageNode(text="a caption", image="aGk=", image_path="c.png", **COMMON),
    ImageDocument(text="a caption", image_path=None, **COMMON),
    IndexNode(text="red apple", index_id="sub", **COMMON),
    IndexNode(text="a", index_id="sub", obj=TextNode(text="inner", id_="inner", metadata=METADATA)),
    IndexNode(text="a", index_id="sub", obj=IndexNode(text="b", index_id="c", obj=LlamaDocument(text="in", id_="in"))),
]
KINDS = [f"{place}-{node.class_name()}" for place, node in enumerate(NODES)]


def stored_and_back(node: BaseNode, **options: Any) -> BaseNode:
    return to_node(to_document(node, **options))


def hostile(content: Any, kind: str = "TextNode", **metadata: Any) -> Document:
    return Document("one", "red apple", {"_node_content": content, "_node_type": kind, "lang": "en", **metadata})


@pytest.mark.parametrize("mode", list(MetadataMode))
@pytest.mark.parametrize("node", NODES, ids=KINDS)
def test_a_node_comes_back_the_same(node: BaseNode, mode: MetadataMode) -> None:
    before, back = node.model_copy(deep=True), stored_and_back(node, metadata_mode=mode)
    assert type(back) is type(node)
    assert back.to_dict() == node.to_dict() == before.to_dict()
    assert back.hash == node.hash
    assert back.get_content(MetadataMode.LLM) == node.get_content(MetadataMode.LLM)
    assert list(back.metadata) == list(node.metadata)  # the order decides the hash and the prompt


@pytest.mark.parametrize("node", NODES, ids=KINDS)
def test_a_node_comes_back_the_same_through_chroma(node: BaseNode, tmp_path: Path) -> None:
    with M3Index(HashingEncoder(), ChromaStore(tmp_path)) as index:
        index.add([to_document(node)])
        [held] = index.get([node.node_id])
    assert (to_node(held).to_dict(), to_node(held).hash) == (node.to_dict(), node.hash)
    assert held.text == node.get_content(MetadataMode.NONE)


def test_filters_see_the_nodes_own_metadata_without_what_is_empty() -> None:
    document = to_document(NODES[0])
    own = {key: value for key, value in document.metadata.items() if not key.startswith("_")}
    assert own == {
        **{key: value for key, value in METADATA.items() if key not in ("none", "empty")},
        **dict.fromkeys(("document_id", "doc_id", "ref_doc_id"), "doc"),
    }
    assert document.metadata["_node_type"] == "TextNode"


def test_the_stored_text_is_the_nodes_own_or_the_one_with_metadata() -> None:
    node = TextNode(text="red apple", metadata={"title": "Fruit", "secret": "x"}, excluded_embed_metadata_keys=["secret"])
    assert to_document(node).text == "red apple"
    document = to_document(node, metadata_mode=MetadataMode.EMBED)
    assert document.text == node.get_content(MetadataMode.EMBED) == "title: Fruit\n\nred apple"
    assert "red apple" not in to_document(node).metadata["_node_content"]
    assert json.loads(document.metadata["_node_content"])["text"] == "red apple"


def test_a_node_without_a_source_has_none_and_a_whole_document_is_its_own() -> None:
    assert "ref_doc_id" not in to_document(TextNode(text="a")).metadata
    assert to_document(LlamaDocument(text="a", id_="whole")).metadata["ref_doc_id"] == "whole"


@pytest.mark.parametrize("node", [*NODES[:3], NODES[4], NODES[9]], ids=lambda node: node.class_name())
def test_llama_index_reads_what_is_kept(node: BaseNode) -> None:
    document = to_document(node)
    theirs = metadata_dict_to_node(dict(document.metadata), text=document.text)
    assert (theirs.node_id, theirs.metadata, theirs.ref_doc_id) == (node.node_id, node.metadata, node.ref_doc_id)
    assert theirs.get_content(MetadataMode.NONE) == node.get_content(MetadataMode.NONE)


@pytest.mark.parametrize("node", [*NODES[:4], NODES[7], NODES[11]], ids=lambda node: node.class_name())
def test_what_llama_index_keeps_is_read(node: BaseNode) -> None:
    theirs = {key: "" if value is None else value for key, value in node_to_metadata_dict(node, remove_text=True).items()}
    document = Document(node.node_id, node.get_content(MetadataMode.NONE), {k: v for k, v in theirs.items() if v != []})
    assert to_node(document).to_dict() == node.to_dict()


def test_a_document_from_elsewhere_becomes_a_text_node() -> None:
    node = to_node(Document("one", "red apple", {"lang": "en", "doc_id": "mine"}))
    assert type(node) is TextNode
    assert (node.node_id, node.text, node.metadata) == ("one", "red apple", {"lang": "en", "doc_id": "mine"})


@pytest.mark.parametrize("mode", [MetadataMode.NONE, MetadataMode.EMBED])
def test_what_another_client_changed_wins(mode: MetadataMode) -> None:
    document = to_document(TextNode(text="red apple", metadata={"lang": "en", "gone": 1}), metadata_mode=mode)
    changed = {key: value for key, value in document.metadata.items() if key != "gone"} | {"lang": "de"}
    node = to_node(Document(document.id, "green pear", changed))
    assert (node.get_content(), node.metadata) == ("green pear", {"lang": "de"})


@pytest.mark.parametrize("mode", list(MetadataMode))
def test_metadata_that_another_client_changed_leaves_the_nodes_text(mode: MetadataMode) -> None:
    document = to_document(TextNode(text="red apple", metadata={"lang": "en"}), metadata_mode=mode)
    node = to_node(Document(document.id, document.text, {**document.metadata, "lang": "de"}))
    assert (node.get_content(MetadataMode.NONE), node.metadata) == ("red apple", {"lang": "de"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("page", {"number": 1}),
        ("mixed", [1, "a"]),
        ("holes", ["a", None]),
        ("nested", [[1]]),
        ("bytes", b"a"),
        ("nan", float("nan")),
        ("huge", 2**70),
        ("#id", "a"),
        ("surrogate", "\ud800"),
        ("object", object()),
    ],
    ids=lambda given: given if isinstance(given, str) and given.isascii() else type(given).__name__,
)
def test_metadata_that_cannot_be_stored_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(InvalidDocumentError) as error:
        to_document(TextNode(text="a", id_="node 7", metadata={key: value}))
    assert "node 7" in str(error.value)
    assert key in str(error.value)


def test_a_node_that_leads_to_something_alive_is_refused_by_name() -> None:
    with pytest.raises(InvalidDocumentError, match="node 7"):
        to_document(IndexNode(text="a", id_="node 7", index_id="sub", obj=object()))


def test_a_node_of_too_many_characters_is_refused_by_name() -> None:
    with pytest.raises(InvalidDocumentError, match="node 7"):
        to_document(ImageNode(text="a", id_="node 7", image="a" * (1 << 24)))


BROKEN = [
    "",
    "not JSON",
    "null",
    "7",
    '"text"',
    "[]",
    "[" * 100_000,
    '{"a":' * 50_000,
    "9" * 10_000,
    '{"metadata": "x"}',
    '{"metadata": {"a": 1}, "relationships": {"9": 1}}',
    '{"relationships": []}',
    '{"text_resource": "x", "text": 4}',
    '{"text": null}',
    '{"excluded_llm_metadata_keys": 3}',
    '{"excluded_embed_metadata_keys": [["lang"]]}',
    '{"start_char_idx": "x", "end_char_idx": [], "mimetype": 7}',
    '{"metadata": {"doc_id": ' + "[" * 500 + "]" * 500 + "}}",
    '{"image_resource": {"path": 4}}',
    '{"index_id": null, "obj": {"__data__": 1, "__type__": 2}}',
    7,
    True,
    ["a", "b"],
]


@pytest.mark.parametrize("kind", ["TextNode", "Node", "IndexNode", "ImageNode", "Document", "ImageDocument", "os.system"])
@pytest.mark.parametrize("content", BROKEN, ids=lambda content: str(content)[:20])
def test_broken_content_never_raises(content: Any, kind: str) -> None:
    node = to_node(hostile(content, kind))
    assert (node.node_id, node.get_content(), node.metadata) == ("one", "red apple", {"lang": "en"})


def test_a_log_line_about_broken_content_names_no_document(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="m3retriever"):
        to_node(Document("zebrafinch", "a zebrafinch", {"_node_content": "zebrafinch", "zebrafinch": "zebrafinch"}))
    assert "_node_content of a document cannot be read" in caplog.text
    assert "zebrafinch" not in caplog.text


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_no_json_of_any_shape_raises(content: Any) -> None:
    for kind in ("TextNode", "Node", "IndexNode", "Document"):
        fields = dict.fromkeys(("metadata", "relationships", "text_resource", "text", "obj", "id_", "mimetype"), content)
        for text in (json.dumps(content), json.dumps({**fields, "index_id": "a"})):
            node = to_node(hostile(text, kind))
            assert (node.node_id, node.get_content()) == ("one", "red apple")
            assert node.metadata == {"lang": "en"}


def test_content_cannot_pass_for_another_node_or_another_tenants() -> None:
    content = TextNode(text="planted", id_="other", metadata={"lang": "en", "tenant": "b"}, embedding=[1.0]).to_json()
    node = to_node(hostile(content, tenant="a"))
    assert (node.node_id, node.get_content(), node.embedding) == ("one", "red apple", None)
    assert node.metadata == {"lang": "en", "tenant": "a"}


@pytest.mark.parametrize(("length", "kind"), [(MAX_CONTENT, LlamaDocument), (MAX_CONTENT + 1, TextNode)])
def test_content_of_too_many_characters_is_not_read(length: int, kind: type[BaseNode]) -> None:
    assert type(to_node(hostile("{}".ljust(length), "Document"))) is kind


TRICKS = (":x>500000000", "!r", ".__class__", "[0]", ":{nope}")
TEXT = ("{nope}", "{content} {0}", "{content} {}", "{content} {", "}", "SPOOF", "", "{content}" * 2, "{metadata_str}", 7, None)
TEMPLATES: list[tuple[str, Any]] = [
    *(("text_template", f"{{content{trick}}} {{metadata_str}}") for trick in TRICKS),
    *(("text_template", f"{{content}} {{metadata_str{trick}}}") for trick in TRICKS),
    *(("text_template", given) for given in (*TEXT, "{content}".ljust(100_000))),
    *(("metadata_template", f"{{key}}: {{value{trick}}}") for trick in TRICKS),
    *(("metadata_template", f"{{key{trick}}}: {{value}}") for trick in TRICKS),
    *(("metadata_template", given) for given in ("{content}", "{value}" * 9, "SPOOF", "{value}{", [], "{value}".ljust(1000))),
    *(("metadata_separator", given) for given in ("x" * 1000, 7, None)),
]


@pytest.mark.parametrize("kind", ["TextNode", "Node", "Document", "ImageNode", "IndexNode"])
@pytest.mark.parametrize(("name", "given"), TEMPLATES, ids=lambda given: str(given)[:40])
def test_a_planted_template_is_not_followed(name: str, given: Any, kind: str) -> None:
    planted = {name: given, "metadata": {"lang": "en"}, "index_id": "sub", "mimetype": "text/markdown"}
    inner = {"__data__": {**planted, "class_name": "TextNode", "text": "red apple"}, "__type__": "1"}
    node = to_node(hostile(json.dumps({**planted, "obj": inner}), kind))
    assert node.class_name() == kind  # the rest of it is read
    for one in [node, node.obj] if isinstance(node, IndexNode) else [node]:
        assert getattr(one, name) == getattr(LLAMA_INDEX, name)
        assert one.get_content(MetadataMode.LLM) == one.get_content(MetadataMode.EMBED) == "lang: en\n\nred apple"


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("name", "given"), [one for one in TEMPLATES if isinstance(one[1], str)], ids=lambda given: given[:40])
def test_a_node_whose_template_would_not_be_followed_is_refused(name: str, given: str, inside: bool) -> None:
    node = TextNode(text="a", id_="node 7", metadata={"a": 1}, **{name: given})
    with pytest.raises(InvalidDocumentError, match=f"node 7.*{name}"):
        leading = IndexNode(text="a", id_="node 7", index_id="sub", obj=node)
        to_document(leading if inside else node, metadata_mode=MetadataMode.EMBED)


def related(**metadata: Any) -> dict[str, Any]:
    return {"node_id": "a", "metadata": metadata}


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else []


RELATIONSHIPS: list[Any] = [
    {"1": []},
    {"1": [related()]},
    {"2": [related()]},
    {"3": [related()]},
    {"4": [related()]},
    {"5": related()},
    {"1": "a"},
    {"1": None},
    {"5": [related()] * (MAX_RELATED + 1)},
    [related()],
    "x",
    {"1": related(deep=deep(300))},
    {"5": [related(deep=deep(500))]},
]


@pytest.mark.parametrize("planted", RELATIONSHIPS, ids=lambda planted: str(planted)[:40])
def test_planted_relationships_break_nothing_that_reads_them(planted: Any) -> None:
    node = to_node(hostile(json.dumps({"relationships": planted, "metadata": {"lang": "en"}})))
    assert (node.source_node, node.prev_node, node.next_node, node.parent_node, node.child_nodes) == (None,) * 5
    assert node.get_content() == "red apple"
    assert type(node).from_dict(json.loads(node.model_dump_json())) == node


@pytest.mark.parametrize(
    "kept", [{"1": related()}, {"5": [related()] * MAX_RELATED}, {"2": related(deep=deep(20))}], ids=[1, 2, 3]
)
def test_ordinary_relationships_are_kept(kept: Any) -> None:
    [[name, links]] = to_node(hostile(json.dumps({"relationships": kept}))).to_dict()["relationships"].items()
    assert {name: [link["node_id"] for link in (links if isinstance(links, list) else [links])]} == {
        name: ["a"] * (len(kept[name]) if isinstance(kept[name], list) else 1)
    }


@pytest.mark.parametrize(
    "links",
    [
        {NodeRelationship.SOURCE: [RelatedNodeInfo(node_id="a")]},
        {NodeRelationship.CHILD: RelatedNodeInfo(node_id="a")},
        {NodeRelationship.CHILD: [RelatedNodeInfo(node_id="a")] * (MAX_RELATED + 1)},
        {NodeRelationship.NEXT: RelatedNodeInfo(node_id="a", metadata={"deep": deep(300)})},
    ],
    ids=["source", "child", "many", "deep"],
)
def test_a_node_with_relationships_that_would_not_be_read_is_refused(links: Any) -> None:
    with pytest.raises(InvalidDocumentError, match="node 7"):
        to_document(TextNode(text="a", id_="node 7", relationships=links))


SPOOFS: list[dict[str, Any]] = [
    {"m3_stored_as": hashlib.sha256(b"red apple").hexdigest()},
    *({"m3_stored_as": mode} for mode in ("embed", "llm", "all", "none", "nonsense", "", None, 7, [], {})),
    {"m3_stored_as": "embed", "text_template": "red apple"},
    {"m3_stored_as": "embed", "text_template": "{metadata_str}", "metadata_template": "red apple"},
    {
        "m3_stored_as": "embed",
        "text_template": "{metadata_str}",
        "metadata_template": "{value}",
        "metadata": {"a": "red apple"},
    },
    {"m3_stored_as": "embed", "text_template": "red apple{content:.0}"},
    {
        "m3_stored_as": "embed",
        "text_template": "red apple {metadata_str}{content[9]}",
        "metadata_template": "",
        "text": [""] * 10,
    },
]


@pytest.mark.parametrize("spoof", SPOOFS, ids=str)
@pytest.mark.parametrize("kind", ["TextNode", "Node", "Document", "ImageNode"])
def test_no_claim_in_the_content_shows_another_text(spoof: dict[str, Any], kind: str) -> None:
    content = {"text": "SPOOF", "text_resource": {"text": "SPOOF"}, "metadata": {"lang": "en"}, **spoof}
    node = to_node(
        hostile(
            json.dumps({name: value for name, value in content.items() if kind != "TextNode" or name != "text_resource"}), kind
        )
    )
    assert node.get_content(MetadataMode.NONE) == "red apple"
    assert "SPOOF" not in node.get_content(MetadataMode.LLM)
    assert node.get_content(MetadataMode.LLM).endswith("en\n\nred apple")


@pytest.mark.parametrize("kind", ["ImageDocument", "ImageNode", "Node", "Document", "IndexNode"])
def test_content_cannot_make_a_constructor_reach_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageDocument(image_url=...) fetches the URL, and ImageDocument(image_path=...) opens the file."""
    reached: list[Any] = []
    for name in ("is_image_url_pil", "is_image_pil", "requests"):
        monkeypatch.setattr(f"llama_index.core.schema.{name}", lambda *given: reached.append(given))
    planted = {"image_url": "http://inside.example/", "image_path": "/etc/passwd", "index_id": "a"}
    inner = {"__data__": {**planted, "class_name": "ImageDocument"}, "__type__": "4"}
    for content in ({"image_url": planted["image_url"]}, {"image_path": "/etc/passwd"}, {"index_id": "a", "obj": inner}):
        to_node(hostile(json.dumps(content), kind))
    assert reached == []


def test_a_subclass_that_llama_index_does_not_know_becomes_a_text_node() -> None:
    class Mine(TextNode):
        @classmethod
        def class_name(cls) -> str:
            return "Mine"

    back = stored_and_back(Mine(text="red apple", id_="one", metadata={"a": 1}))
    assert type(back) is TextNode
    assert (back.node_id, back.text, back.metadata) == ("one", "red apple", {"a": 1})


def test_metadata_under_llama_indexs_own_names_comes_back_but_is_not_filtered_by() -> None:
    node = TextNode(text="a", metadata={"doc_id": "mine", "_node_type": "x", "b": 1}, relationships=LINKS)
    document = to_document(node)
    assert document.metadata["doc_id"] == "doc"
    assert to_node(document).metadata == node.metadata
