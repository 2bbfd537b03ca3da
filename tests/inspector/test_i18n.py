import ast
import re
from pathlib import Path

import pytest

import m3retriever.inspector
from m3retriever.inspector.i18n import LANGUAGES, language_of, table, translator

FOLDER = Path(m3retriever.inspector.__file__).parent
SOURCES = {path: path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.py")}
KEY = re.compile(r"""\bt\(\s*f?["']([a-z_.{}]+)""")


def test_all_languages_have_the_same_keys_and_the_same_values_to_fill_in():
    english = table("en")
    for language in LANGUAGES:
        words = table(language)
        assert words.keys() == english.keys()
        for key, text in words.items():
            assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", english[key])), key


def test_every_key_in_the_code_is_in_the_tables_and_no_other():
    asked = {key for source in SOURCES.values() for key in KEY.findall(source) if "{" not in key}
    assert asked <= table("en").keys()
    nodes = [node for source in SOURCES.values() for node in ast.walk(ast.parse(source))]
    written = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    begun = {
        node.values[0].value for node in nodes if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant)
    }
    families = tuple(one for one in begun if re.fullmatch(r"[a-z_]+\.[a-z_.]*", one))
    assert not [key for key in table("en") if key not in written and not key.startswith(families)]


def test_values_are_filled_in():
    assert translator("en")("search.above", n=2, k=5, threshold="0.50") == "2 / 5 above threshold 0.50"


@pytest.mark.parametrize(("locale", "language"), [("zh-CN", "zh"), ("zh", "zh"), ("en-GB", "en"), ("de", "en"), (None, "en")])
def test_the_language_follows_the_browser(locale, language):
    assert language_of(locale) == language
