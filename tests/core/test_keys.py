import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.keys import from_column, key_to_bytes, key_to_text, to_column

ESCAPED = st.characters(min_codepoint=0xF770, max_codepoint=0xF80F)
"""The characters of escapes, and some beside them."""


@given(st.binary())
def test_any_key_is_a_text_and_back(key):
    assert key_to_bytes(key_to_text(key)) == key


@given(st.lists(st.binary(max_size=4) | st.text(ESCAPED, max_size=3)))
def test_a_table_holds_any_text_and_gives_it_back(parts):
    text = key_to_text(b"".join(part.encode() if isinstance(part, str) else part for part in parts))
    column = to_column(text)
    column.encode()  # valid UTF-8
    assert from_column(column) == text
    assert to_column(column) != column or column == text


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("photo.jpg", "photo.jpg"),
        ("é\U0001f600\uf77f\uf800", "é\U0001f600\uf77f\uf800"),
        ("caf\udce9.jpg", "caf\uf7e9.jpg"),
        ("\uf7e9", "\uf7ef\uf79f\uf7a9"),
    ],
)
def test_only_bytes_that_are_no_utf_8_and_their_escapes_are_escaped(text, column):
    assert to_column(text) == column
    assert from_column(column) == text
