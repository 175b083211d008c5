import subprocess
import sys

import pytest

from pipeline.core.protobuf import message_classes

DECLARATION = """
    message Point { int32 x = 1; repeated string names = 3; }
    message Shape {
        oneof kind { Point point = 1; float radius = 2; }
        map<string, Point> corners = 4;
        bytes data = 5;
    }
"""


def test_messages_round_trip():
    classes = message_classes("shapes", DECLARATION)
    assert set(classes) == {"Point", "Shape"}
    shape = classes["Shape"](data=b"\xff", point={"x": -1, "names": ["a", "b"]})
    shape.corners["left"].x = 3
    again = classes["Shape"].FromString(shape.SerializeToString())
    assert again == shape
    assert again.WhichOneof("kind") == "point"
    again.radius = 2
    assert again.WhichOneof("kind") == "radius"
    assert again.corners["left"].x == 3


def test_bytes_are_those_of_the_public_encoding():
    point = message_classes("shapes", DECLARATION)["Point"](x=150, names=["ab"])
    assert point.SerializeToString() == b"\x08\x96\x01\x1a\x02ab"


def test_fields_that_are_not_declared_are_kept():
    classes = message_classes("shapes", "message Point { int32 x = 1; }")
    data = b"\x08\x96\x01\x1a\x02ab"
    assert classes["Point"].FromString(data).SerializeToString() == data


def test_messages_of_one_name_do_not_meet():
    first, second = (message_classes("shapes", DECLARATION)["Point"] for _ in range(2))
    assert first is not second
    assert message_classes("shapes", "message Point { string x = 1; }")["Point"](x="a").x == "a"


def test_other_statements_are_refused():
    with pytest.raises(ValueError, match=r"^the declaration of shapes has 'optional'; expected messages and fields$"):
        message_classes("shapes", "message Point { int32 x = 1; optional int32 y = 2; }")


def test_nothing_heavy_is_imported():
    code = "import sys, pipeline.core.protobuf; print({'tensorflow', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
