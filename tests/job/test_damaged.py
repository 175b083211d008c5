"""Damaged images that have pixels all the same, in a whole run."""

import json

from pipeline.commands.result import describe_result
from pipeline.dataset.reader import read_damaged, read_failures
from pipeline.dataset.verify import verify
from tests.datasets import complete, embed, read_vectors


def halve(path):
    data = path.read_bytes()
    path.write_bytes(data[: (data.index(b"\xff\xda") + len(data)) // 2] + b"\xff\xd9")


def test_damaged_images_are_embedded_counted_and_listed(photos, out, tiny_module):
    halve(photos / "001.jpg")
    summary = embed(photos, out, tiny_module)
    assert (summary.embedded, summary.failed, summary.damaged_but_embedded) == (5, 0, 1)
    assert json.loads((out / "summary.json").read_text())["damaged_but_embedded"] == 1
    text = str(describe_result(summary, str(out), {}))
    assert f"\ndamaged   1 embedded although damaged: see {out}/damaged\n" in text
    (damaged,) = read_damaged(str(out))
    assert (damaged.key, damaged.source) == (b"001.jpg", str(photos / "001.jpg"))
    assert damaged.message == "damaged jpeg: Corrupt JPEG data: premature end of data segment"
    assert [path.name for path in (out / "damaged").iterdir()] == ["damaged-00000-00000-of-00001.jsonl"]
    assert complete(out)
    assert json.loads((out / "spec.json").read_text())["decoders"].keys() >= {"pillow", "simplejpeg"}


def test_damaged_images_fail_if_asked(photos, out, tiny_module):
    embed(photos, out, tiny_module)
    whole = read_vectors(out)
    halve(photos / "001.jpg")
    summary = embed(photos, out, tiny_module, on_damaged="fail", overwrite=True)
    assert (summary.embedded, summary.damaged_but_embedded) == (4, 0)
    (failure,) = read_failures(str(out))
    assert (failure.key, failure.stage, failure.reason) == (b"001.jpg", "decode", "truncated")
    assert failure.message.endswith("premature end of data segment; fetch the file again")
    assert read_vectors(out) == {key: vector for key, vector in whole.items() if key != b"001.jpg"}
    assert not (out / "damaged").exists()
    assert verify(str(out)).problems == ()


def test_another_version_of_a_decoder_is_no_reason_to_refuse(photos, out, tiny_module):
    embed(photos, out, tiny_module)
    spec = json.loads((out / "spec.json").read_text())
    for decoders in ({"pillow": "1.0"}, None):
        (out / "spec.json").write_text(
            json.dumps(
                {**spec, "decoders": decoders}
                if decoders
                else {name: item for name, item in spec.items() if name != "decoders"}
            )
        )
        assert embed(photos, out, tiny_module).skipped == 5
