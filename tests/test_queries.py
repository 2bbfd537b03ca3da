"""What kind a query is: by hand in English, Chinese and code, and for any text whatever."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3retriever.queries import FEATURES, HEAD, KINDS, features, kind_of, script_of, usual_script

CODE = [
    "E1234", "ERR_CONNECTION_REFUSED", "v1.2.3", "os.path.join", "getElementById()", "std::vector", "--no-cache-dir",
    "user@host", "x = [i for i in y]", "978-3-16", "/etc/hosts", "C#", "https://a.b/c", "HTTP-404 nginx", "TypeError",
]  # fmt: skip
KEYWORDS = [
    "", "cheap red shoes", "python 3.11", "4th july parade", "10pm news", "transfer money", "手机壳", "北京 天气",
    "iPhone 手机壳", "任何问题", "and/or", "!!!", "Wetter Berlin", "\x00", "\ud800",
]  # fmt: skip
SENTENCES = [
    "how do i use os.path.join?", "what's the weather", "is it open", "i need to know my balance", "so what is a monad",
    "the president of the united states", "Heute ist ein schöner Tag.", "我的手机坏了怎么办", "什麼是梵語",
    "印梵語族最早出現於何處", "今天的天气在北京是好的", "你好吗",
    "red blue green black white brown pink gray cyan gold", "Что это такое?",
]  # fmt: skip

any_text = st.text(st.characters(codec=None), max_size=60)


def named(query, **options):
    return dict(zip(FEATURES, features(query, **options).tolist(), strict=True))


@pytest.mark.parametrize(
    ("query", "kind"),
    [(query, kind) for kind, of in (("code", CODE), ("keywords", KEYWORDS), ("sentence", SENTENCES)) for query in of],
)
def test_a_query_is_of_the_kind_a_reader_would_say(query, kind):
    assert kind_of(query) == kind
    assert named(query)[kind] == 1


@pytest.mark.parametrize(("query", "script"), [
    ("hello", "latin"), ("Grüße", "latin"), ("ｈｅｌｌｏ", "latin"), ("梵語", "han"),
    ("東京の天気", "kana"), ("カタカナ", "kana"),
    ("погода", "cyrillic"), ("안녕", "hangul"), ("שלום", "hebrew"), ("مرحبا", "arabic"), ("iPhone 手机壳", "han"),
    ("what does 梵 mean", "latin"),
    ("", ""), ("123 !?", ""), ("\ud800", ""),
])  # fmt: skip
def test_the_script_is_that_of_most_of_the_text(query, script):
    assert script_of(query) == script


def test_another_script_than_the_usual_one_is_foreign_unless_it_is_code():
    assert kind_of("погода в Берлине", script="latin") == "foreign"
    assert kind_of("what is the weather", script="han") == "foreign"
    assert kind_of("今天天气怎么样", script="han") == "sentence"
    assert kind_of("E1234", script="han") == "code"
    assert kind_of("2024", script="han") == "keywords"  # no letters, no script
    assert named("погода", script="latin")["foreign"] == 1
    assert named("погода")["foreign"] == 0


def test_the_usual_script_is_the_one_most_queries_have():
    assert usual_script(["hello", "梵語", "world", "1"]) == "latin"
    assert usual_script(["hello", "梵語"]) == "han"  # of equals the first by name
    assert usual_script(["", "1"]) == usual_script([]) == ""


def test_features_are_shares_of_what_is_there():
    assert named('ab "C9" + x?') == {
        "words": pytest.approx(np.log(5) / np.log(65)),  # four of them
        "digits": pytest.approx(1 / 9),
        "symbols": pytest.approx(1 / 9),
        "capitals": pytest.approx(1 / 4),
        "codelike": pytest.approx(1 / 4),
        "quoted": 1,
        "asking": 1,
        "code": 0,
        "keywords": 0,
        "sentence": 1,
        "foreign": 0,
    }
    assert named("")["words"] == 0
    assert named("梵語")["words"] == pytest.approx(np.log(2) / np.log(65))  # two signs are a word
    assert named("一 " * 1000)["words"] == 1


@given(any_text, st.sampled_from(["", "latin", "han"]))
def test_any_text_has_one_kind_and_finite_features(query, script):
    values = features(query, script=script)
    assert values.shape == (len(FEATURES),)
    assert values.dtype == np.float64
    assert ((values >= 0) & (values <= 1)).all()
    assert values[FEATURES.index(KINDS[0]) :].sum() == 1
    assert named(query, script=script)[kind_of(query, script=script)] == 1


@given(st.text("ab1 Z_+", max_size=40))
def test_shares_are_what_counting_gives(query):
    filled = query.replace(" ", "")
    letters = [char for char in filled if char.isalpha()]
    found = named(query)
    assert found["digits"] == pytest.approx(filled.count("1") / max(1, len(filled)))
    assert found["symbols"] == pytest.approx((filled.count("+") + filled.count("_")) / max(1, len(filled)))
    assert found["capitals"] == pytest.approx(letters.count("Z") / max(1, len(letters)))


@given(any_text)
def test_blanks_around_a_query_say_nothing(query):
    assert features(f"  {query}\n").tolist() == features(query).tolist()


@pytest.mark.parametrize("part", ["a", "9", "1.1", "a_", "梵", "(?", '"', "ﷺ", "\ud800", "1-"])
def test_a_megabyte_costs_no_more_than_its_beginning(part):
    long = (part * 1_000_000)[:1_000_000]
    begun = time.perf_counter()
    values = features(long)
    assert time.perf_counter() - begun < 1
    assert values.tolist() == features(long[:HEAD]).tolist() == features(long[:HEAD] + " what is this?").tolist()
