import pytest

from pipeline.job.pipelines import last_line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no reason given"),
        ("one line", "one line"),
        ("ValueError: bad [while running 'EmbedImages']", "ValueError: bad"),
        ("java.lang.X: Error\\n\\tat a.b(C.java)\\nCaused by: no space", "Caused by: no space"),
        ("Traceback (most recent call last):\n  File x, line 1\nKeyError: 1\n    at a.b(C.java)\n", "KeyError: 1"),
        ("Dataflow pipeline failed. State: FAILED, Error:\nquota", "quota"),
        ("Dataflow pipeline failed. State: FAILED, Error:\nNone", "Dataflow pipeline failed. State: FAILED"),
        ("SparkException: lost task\n\tat a.b(C.java)\nDriver stacktrace:", "SparkException: lost task"),
        ("x" * 600, "x" * 500 + "..."),
    ],
)
def test_the_last_line_that_names_an_error(text, reason):
    assert last_line(text) == reason
