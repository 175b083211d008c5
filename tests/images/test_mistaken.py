import base64
import gzip
import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from tests import image_samples as samples
from tests.images.decoding import header_refusal

JPEG, PNG = samples.ONE_OF_EACH_FORMAT["jpeg"], samples.ONE_OF_EACH_FORMAT["png"]


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, samples.pixels())
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("a.jpg", JPEG)
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
STORE = "store the encoded image's bytes instead"
FETCH = "fetch the image again"


@pytest.mark.parametrize(
    ("data", "what", "advice"),
    [
        (base64.b64encode(JPEG), "base64 text of a JPEG image", "decode it with base64.b64decode"),
        (base64.encodebytes(PNG), "base64 text of a PNG image", "decode it with base64.b64decode"),
        (base64.urlsafe_b64encode(JPEG), "base64 text of a JPEG image", "decode it with base64.b64decode"),
        (b"data:image/png;base64," + base64.b64encode(PNG), "base64 text of a PNG image", "decode it with base64"),
        (pickle.dumps(JPEG), "a Python pickle", STORE),
        (pickle.dumps(samples.pixels(), protocol=2), "a Python pickle", STORE),
        (npy(), "a NumPy array (.npy)", "such as a PNG of the array"),
        (archive(), "a ZIP archive", "unpack it first"),
        (gzip.compress(JPEG), "gzip data", "decompress it first"),
        (LFS, "a Git LFS pointer", "run git lfs pull"),
        (b"../.git/annex/objects/x1/Jz/SHA256E-s3--2c.jpg", "a git-annex pointer", "run git annex get"),
        (b"<!DOCTYPE html>\n<html><head><title>404", "an HTML page, as servers send with errors", FETCH),
        (b"\n <HTML lang=en>", "an HTML page, as servers send with errors", FETCH),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document, as stores send with errors", FETCH),
        (json.dumps({"image": "x"}).encode(), "JSON text", STORE),
        (json.dumps(samples.pixels().tolist()).encode(), "JSON text", STORE),
        (b"https://example.com/a.jpg\n", "an address", "--input_format=list"),
        (b"photos/2021/a b.JPG", "the path of a file", "--input_format=list"),
        (repr(JPEG).encode(), "the text of a Python bytes literal", STORE),
        (JPEG.decode("utf-8", "replace").encode(), "an image damaged by decoding it as UTF-8 text", FETCH),
        (PNG.decode("utf-8", "replace").encode(), "an image damaged by decoding it as UTF-8 text", FETCH),
        (JPEG.decode("latin-1").encode(), "an image encoded as UTF-8 text", "encode('latin-1')"),
        (PNG.decode("latin-1").encode(), "an image encoded as UTF-8 text", "encode('latin-1')"),
        (JPEG.hex().encode(), "hexadecimal text of an image", "bytes.fromhex"),
        (b"%PDF-1.7\n", "a PDF document", "convert its pages to images"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video", "extract its frames"),
        (b"\0\x05\x16\x07\0\2\0\0Mac OS X", "macOS metadata (AppleDouble)", "leave out files that begin with ._"),
        (bytes(5000), "only zero bytes, as after an interrupted download", FETCH),
    ],
)
def test_what_is_no_image_is_named(data, what, advice):
    error = header_refusal(data)
    assert error.reason == "not_an_image"
    assert str(error).startswith(f"not an image, but {what}")
    assert advice in str(error)
    assert "\n" not in str(error)


def test_a_tf_example_is_named():
    example = b"\x0a\x80\x02\x0a\x1f\x0a\x0dimage/encoded\x12\x0e\x0a\x0c" + JPEG[:200]
    assert str(header_refusal(example)).startswith("not an image, but a serialized tf.train.Example")


@pytest.mark.parametrize("data", [b"just a few words, no more", b"\x01\x02\x03\x04", b"A" * 100, b"[section]\nkey=1"])
def test_what_nobody_knows_is_shown(data):
    assert str(header_refusal(data)).startswith(f"no known image begins with {data[:8]!r}; expected ")
