"""Answering without a language model: the sentences of a prompt's passages that fit its question best, cited.

A prompt is read by the conventions that RAG templates share:

- passages that begin with `[1]` or `Source 1:` at the start of a line, numbered upwards one by one;
  or one context without numbers, between two lines of dashes or after a line `Context:`;
- the question after `Question:`, `Query:` or `问题:` at the start of a line. The last such line wins, so
  that none inside a passage is taken for it; where the question stands before the passages, the first.

`numbered` writes passages so that no text of theirs can be taken for the frame around it. Written without
it, a passage can end itself and forge the one with the next number; the question it can never forge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from m3retriever.checks import check_k
from m3retriever.reranking import rerank
from m3retriever.types import Encoder

MARKER = re.compile(r"^(?:\[(\d{1,4})\](?![:(\[])|Source (\d{1,4}):)[ \t]*", re.M)
QUESTION = re.compile(r"^(?:question|query|问题)[ \t]*[:：]", re.M | re.I)
TURN = re.compile(r"^(?:user|human)[ \t]*:", re.M | re.I)  # a chat that was written as one text
REPLY = re.compile(r"^(?:answer|assistant|回答|答案)[ \t]*[:：]", re.M | re.I)
CONTEXT = re.compile(r"^(?:context|passages|sources|资料)[ \t]*[:：]", re.M | re.I)
FENCE = re.compile(r"^-{6,}[ \t]*$", re.M)  # of dashes; three to five are Markdown's
FRAME = re.compile("|".join(f"(?:{part.pattern})" for part in (MARKER, QUESTION, TURN, REPLY, CONTEXT, FENCE)), re.M | re.I)

# What LlamaIndex's own templates say around their parts
EXAMPLE = "For example:\nSource 1:", "Now it's your turn"
QUERY = "The original query is as follows: ", "\nWe have provided an existing answer: "
EXISTING = "We have provided an existing answer: ", "\nWe have the opportunity to refine"
CITED_EXISTING = "We have provided an existing answer: ", "Below are several numbered sources"

CODE = re.compile(r"^[ \t]*(?:```|~~~)")
HEADING = re.compile(r"^#{1,6}[ \t]+")
ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+")
RULE = re.compile(r"^[ \t]*[-=_*|:+~][-=_*|:+~ \t]*$")  # a line of Markdown that has no word
END = re.compile(r"[。！？；]+[”’」』）]*|(?<![.!?])[.!?]+[\"'”’)\]*`]*(?=\s+[\"'“‘(\[*`]*[A-Z0-9\u3400-\u9fff])")
SHORT = re.compile(r"\b(?:(?i:e\.g|i\.e|etc|cf|vs|al|no|fig|approx|mr|mrs|ms|dr|prof|st)|[A-Z])\.$")
LONGEST_SHORT = 8  # characters of the longest one, and what stands before it
CITED = re.compile(r"\s\[(\d{1,4})\](?=\s|$)")
WORD = re.compile(r"\w\w|[\u3400-\u9fff]")
CHINESE, JAPANESE = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[\u3040-\u30ff]")

SCORED = 400  # characters of a sentence that are scored, its heading included: about 100 tokens
# With 0.3 and the mini model, 94 % of the demo's questions get an answer from four passages of which one is
# right, 14 % from passages of rank 41 to 44, and one of 12 questions about other matters.
SHARE = 0.3  # of the way from the score of unrelated sentences to that of the question itself; see `choose`
NEAR = 0.75  # of the best sentence's way above unrelated ones: what scores less adds more noise than answer
UNRELATED = {
    "en": (
        "The bread was still warm when we left the bakery.",
        "Our team lost the match by two goals on Sunday.",
        "She painted the wooden fence green last summer.",
        "The train to the coast leaves at seven every morning.",
        "My uncle keeps bees behind the old church.",
        "It rained all night, and the river rose.",
    ),
    "zh": (
        "我们离开面包店时面包还是热的。",
        "我们队星期天以两球之差输了比赛。",
        "她去年夏天把木栅栏漆成了绿色。",
        "去海边的火车每天早上七点出发。",
        "我叔叔在老教堂后面养蜜蜂。",
        "下了一整夜的雨，河水涨了。",
    ),
}
NO_ANSWER = {"en": "The passages do not answer this question.", "zh": "这些段落没有回答这个问题。"}
NO_PASSAGES = {"en": "There are no passages to answer from.", "zh": "没有可以用来回答的段落。"}


@dataclass(frozen=True)
class Passage:
    """A text to answer from; `number` is what the prompt calls it, None where it gives no numbers."""

    text: str
    number: int | None = None


@dataclass(frozen=True)
class Prompt:
    """What a prompt asks, the passages it gives, and the answer it wants refined, if any."""

    question: str
    passages: tuple[Passage, ...] = ()
    existing: str = ""


@dataclass(frozen=True)
class Sentence:
    """A sentence, list item, row of a table or block of code, as it stands in its passage.

    Attributes
    ----------
    text : without the line breaks of a paragraph; code keeps its own
    number : that of its passage
    heading : the Markdown heading or table header above it, which is scored with it
    """

    text: str
    number: int | None = None
    heading: str = ""


def numbered(texts: Sequence[str]) -> str:
    """The texts as passages [1], [2], ... of a prompt.

    A line of theirs that reads like a part of the frame (`Question:`, `[2]`, a line of dashes) is moved
    in by one space, so that it can neither ask nor forge a passage.
    """
    passages = (FRAME.sub(lambda found: " " + found.group(), text.strip()) for text in texts)
    return "\n\n".join(f"[{place}] {text}" for place, text in enumerate(passages, 1))


def answer(encoder: Encoder, prompt: Prompt, *, sentences: int = 3) -> list[str]:
    """The best sentences in reading order, each with the number of its passage; together they are the answer.

    At most `sentences` of them, at least 1; where nothing fits the question, one that says so, in
    Chinese for a Chinese question, else in English. An existing answer is kept as it is unless the
    passages have sentences that are better than the worst of it.
    """
    check_k(sentences)
    words = "zh" if CHINESE.search(prompt.question) and not JAPANESE.search(prompt.question) else "en"
    old = _quoted(prompt.existing) if prompt.existing not in (*NO_ANSWER.values(), *NO_PASSAGES.values()) else []
    new = [sentence for passage in prompt.passages for sentence in split(passage)]
    said = {sentence.text for sentence in old}
    both = [*old, *(sentence for sentence in new if sentence.text not in said)]
    best = choose(encoder, prompt.question, both, k=sentences, unrelated=UNRELATED[words])
    if old and all(place < len(old) for place in best):
        return [prompt.existing]
    if not best:
        return [NO_ANSWER[words] if prompt.passages else NO_PASSAGES[words]]
    chosen = [both[place] for place in best]
    return [_cited(sentence) + _gap(sentence, chosen[place + 1 :]) for place, sentence in enumerate(chosen)]


def choose(encoder: Encoder, question: str, sentences: Sequence[Sentence], *, k: int, unrelated: Sequence[str]) -> list[int]:
    """Places of the at most k best sentences that fit the question, ascending.

    What fits depends on the model: unrelated texts score about 0 with one and 0.4 with another. So the
    question itself and sentences on other matters are scored along; a sentence fits that comes SHARE of
    the way from those (their median, for one of them may be on the question's matter) to the former, and
    NEAR of the way that the best sentence comes.
    """
    if not sentences or not question.strip():
        return []
    texts = [f"{sentence.heading}: {sentence.text}" if sentence.heading else sentence.text for sentence in sentences]
    ranked = rerank(encoder, question[:SCORED], [text[:SCORED] for text in (*texts, *unrelated, question)])
    score = {result.place: result.score for result in ranked}
    low = median(score[len(texts) + place] for place in range(len(unrelated)))
    found = [result.place for result in ranked if result.place < len(texts)]
    floor = low + max(SHARE * (score[len(score) - 1] - low), NEAR * (score[found[0]] - low))
    return sorted([place for place in found if score[place] >= floor][:k])


# -- reading a prompt --------------------------------------------------------------------------------


def read_prompt(text: str, context: str = "") -> Prompt:
    """The question, the passages and the existing answer in a prompt; see the conventions on top.

    `context` is a text that may hold the passages, such as a system message; the question never stands
    there. A prompt that names no question is one; after passages, its last paragraph is.
    """
    first, example = _first(text), _between(text, EXAMPLE)
    if first and example and text[: first.end()].endswith(EXAMPLE[0]):
        text = text[example[1] + len(EXAMPLE[1]) :]
    start, existing = _frame_start(text), ""
    query, refined, cited = (_between(text[:start], part) for part in (QUERY, EXISTING, CITED_EXISTING))
    if query and refined:
        return Prompt(text[slice(*query)].strip(), _passages(text[start:]), text[slice(*refined)].strip())
    if cited:
        text, existing = text[cited[1] :], text[slice(*cited)].strip()
    question, rest = _question(text)
    return Prompt(question, _passages(rest, bare=False) or _passages(context, bare=False) or _passages(rest), existing)


def _between(text: str, ends: tuple[str, str]) -> tuple[int, int] | None:
    """Where the text between two others begins and ends; None where one is missing."""
    start = text.find(ends[0])
    stop = text.find(ends[1], start)
    return (start + len(ends[0]), stop) if 0 <= start < stop else None


def _question(text: str) -> tuple[str, str]:
    """The question, and the text without it."""
    start = _frame_start(text)
    first = QUESTION.search(text, 0, start)
    if start < len(text) and first and not REPLY.search(text, first.end(), start):
        return text[first.end() : start].strip(), text[start : _reply_at_the_end(text)]
    labels = [*QUESTION.finditer(text), *TURN.finditer(text)]
    if labels:
        label = max(labels, key=lambda found: found.start())
        return _until_reply(text[label.end() :]), text[: label.start()]
    if not MARKER.search(text):
        return text.strip(), ""
    passages, _, last = text.rstrip().rpartition("\n\n")
    return last.strip(), passages


def _frame_start(text: str) -> int:
    """Where the passages begin, or the text's length."""
    found = _first(text)
    return found.start() if found else len(text)


def _first(text: str) -> re.Match[str] | None:
    """What begins the passages: the first of a marker, a label and a line of dashes."""
    found = [match for part in (MARKER, CONTEXT, FENCE) if (match := part.search(text))]
    return min(found, key=lambda match: match.start(), default=None)


def _until_reply(text: str) -> str:
    found = REPLY.search(text)
    return text[: found.start()].strip() if found else text.strip()


def _reply_at_the_end(text: str) -> int:
    """Where a last line "Answer:" begins that nothing follows, or the text's length."""
    last = text.rstrip().rfind("\n") + 1
    return last if REPLY.match(text, last) else len(text)


def _passages(text: str, *, bare: bool = True) -> tuple[Passage, ...]:
    """Numbered passages where there are some, else the framed context as one, else, if `bare`, all of the text."""
    inside = _inside_frame(text)
    body = (text if inside is None else inside).strip()
    first = MARKER.search(body)
    keys = _keys(body[: first.start()]) if first and first[2] and inside is not None else set[str]()
    if first is None or (inside is not None and first.start() > 0 and not keys):
        return (Passage(body),) if body and (bare or inside is not None) else ()
    kind, starts = (1 if first[1] else 2), [first]
    for found in MARKER.finditer(body, first.end()):
        if found[kind] and int(found[kind]) == int(starts[-1][kind]) + 1:
            starts.append(found)
    ends = [found.start() for found in starts[1:]] + [len(body)]
    texts = (_without(keys, body[at.end() : end].strip()) for at, end in zip(starts, ends, strict=True))
    return tuple(Passage(text, int(at[kind])) for at, text in zip(starts, texts, strict=True))


def _keys(text: str) -> set[str]:
    """The keys, where every line is `key: value`, which is how LlamaIndex puts metadata before a source; else none."""
    lines = [line.partition(": ") for line in text.split("\n") if line.strip()]
    return {key for key, _, _ in lines} if all(colon for _, colon, _ in lines) else set()


def _without(keys: set[str], text: str) -> str:
    """The text without a last paragraph of such metadata, which belongs to the source that follows."""
    before, _, last = text.rpartition("\n\n")
    return before if keys and _keys(last) and _keys(last) <= keys else text


def _inside_frame(text: str) -> str | None:
    """What stands between the first line of dashes and the last, or after `Context:`; None where a marker comes first."""
    first = _first(text)
    if first is None or first.re is MARKER:
        return None
    if first.re is CONTEXT and not FENCE.match(text[first.end() :].lstrip()):
        return text[first.end() :]
    fences = [*FENCE.finditer(text)]
    return text[fences[0].end() : fences[-1].start() if len(fences) > 1 else len(text)]


# -- sentences ---------------------------------------------------------------------------------------


def split(passage: Passage) -> list[Sentence]:
    """The passage's sentences, list items, rows of tables and blocks of code, in their order.

    Knows the ends of English and of Chinese sentences. Headings and lines without a word are none.
    """
    found: list[Sentence] = []
    heading = header = last = ""
    for kind, text in _blocks(passage.text):
        header = text if kind == "header" else header if kind == "row" else ""
        if kind == "heading":
            heading = last = text
        elif kind == "code":
            found.append(Sentence(text, passage.number, last))
        elif kind == "row":
            found.append(Sentence(text, passage.number, header))
        elif kind == "text":
            found += [Sentence(sentence, passage.number, heading) for sentence in _sentences(text)]
            last = found[-1].text if found else heading
    return [sentence for sentence in found if WORD.search(sentence.text)]


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Pieces of Markdown as (kind, text): heading, code, header or row of a table, or text."""
    lines, paragraph = text.split("\n"), list[str]()
    while lines or paragraph:
        kind, piece, count = _next(lines) if lines else ("end", "", 0)
        if paragraph and kind != "text":
            title = len(paragraph) == 1 and kind == "end" and set(piece) in ({"="}, {"-"})
            yield "heading" if title else "text", _joined(paragraph)
            paragraph = []
        if kind in ("text", "item"):
            paragraph.append(piece)
        elif kind != "end":
            yield kind, piece
        lines = lines[count:]


def _next(lines: Sequence[str]) -> tuple[str, str, int]:
    """The kind of the first line, its text, and how many lines it takes; "end" only ends a paragraph."""
    line, count = lines[0].strip(), _code_lines(lines)
    if count:
        return "code", "\n".join(lines[:count]), count
    if found := HEADING.match(line):
        return "heading", line[found.end() :].rstrip("# \t"), 1
    if not line or RULE.match(line) or CODE.match(line):
        return "end", line, 1
    if line.startswith("|"):
        above = len(lines) > 1 and "|" in lines[1] and RULE.match(lines[1])
        return "header" if above else "row", line, 1
    return "item" if ITEM.match(line) else "text", ITEM.sub("", line), 1


def _code_lines(lines: Sequence[str]) -> int:
    """How many lines the block of code has that begins with the first line; 0 where none does.

    A fence without an end is a block if it names a language; else it ends code that was cut off above.
    """
    if not CODE.match(lines[0]):
        return 0
    fence = lines[0].strip()[:3]
    for count, line in enumerate(lines[1:], 2):
        if line.strip() == fence:
            return count
    return len(lines) if lines[0].strip("`~ \t") else 0


def _joined(lines: Sequence[str]) -> str:
    """The lines of a paragraph as one, with a space between them, but not between Chinese characters."""
    text = "\n".join(line.strip() for line in lines)
    return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])", "", text).replace("\n", " ")


def _sentences(paragraph: str) -> Iterator[str]:
    start = 0
    for found in END.finditer(paragraph):
        if not SHORT.search(paragraph[max(start, found.end() - LONGEST_SHORT) : found.end()]):
            yield paragraph[start : found.end()].strip()
            start = found.end()
    if rest := paragraph[start:].strip():
        yield rest


# -- writing an answer -------------------------------------------------------------------------------


def _cited(sentence: Sentence) -> str:
    if sentence.number is None:
        return sentence.text
    return sentence.text + ("\n" if "\n" in sentence.text else " ") + f"[{sentence.number}]"


def _gap(sentence: Sentence, following: Sequence[Sentence]) -> str:
    """What separates a sentence from the next one; nothing after the last."""
    if not following:
        return ""
    return "\n" if "\n" in sentence.text + following[0].text else " "


def _quoted(existing: str) -> list[Sentence]:
    """The sentences of an answer that was written here."""
    *cited, rest = CITED.split(existing)
    pairs = zip(cited[::2], cited[1::2], strict=True)
    return [Sentence(text.strip(), int(number)) for text, number in pairs] + split(Passage(rest))
