"""Names bytes that are no image, but something that people store in its place."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from pipeline.images.formats.base import ImageFormat

_FETCH = "fetch the image again"
_STORE = "store the encoded image's bytes instead"
_LIST = "write such lines to a text file, and read it with --input_format=list"
# First match wins. Patterns match at the start of the data.
_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), title, advice)
    for pattern, title, advice in (
        (
            rb"version https://(?:git-lfs|hawser)",
            "a Git LFS pointer",
            "run git lfs pull, and embed the files it fetches",
        ),
        (rb"\.?/?(?:\.\./)*(?:\.git/annex|annex)/objects/", "a git-annex pointer", "run git annex get"),
        (rb"\x80[\x02-\x05]", "a Python pickle", _STORE),
        (rb"\x93NUMPY", "a NumPy array (.npy)", f"{_STORE}, such as a PNG of the array"),
        (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive (perhaps .npz or .pt)", "unpack it first"),
        (rb"\x1f\x8b", "gzip data", "decompress it first"),
        (rb"\x28\xb5\x2f\xfd|\xfd7zXZ\0|BZh[1-9]1AY|7z\xbc\xaf", "compressed data", "decompress it first"),
        (
            rb"\s*(?:\xef\xbb\xbf)?<(?:!doctype html|html|head|body)",
            "an HTML page, as servers send with errors",
            _FETCH,
        ),
        (rb"\s*(?:\xef\xbb\xbf)?<\?xml|\s*<Error>", "an XML document, as stores send with errors", _FETCH),
        (rb"\s*(?:\xef\xbb\xbf)?(?:\{\s*[\"}]|\[\s*[\[\]{\"\d-])", "JSON text", _STORE),
        (rb"(?:https?|gs|s3|file)://\S+\s*$", "an address", _LIST),
        (rb"[\w./\\ :-]{1,1000}\.(?:jpe?g|png|gif|bmp|webp|tiff?|avif|heic)\s*$", "the path of a file", _LIST),
        (rb"b(['\"])\\x(?:ff|89)", "the text of a Python bytes literal", _STORE),
        (
            rb"\xef\xbf\xbd.{0,12}(?:PNG\r|JFIF|Exif)|(?:\xef\xbf\xbd){3}",
            "an image damaged by decoding it as UTF-8 text",
            _FETCH,
        ),
        (
            rb"\xc3\xbf\xc3\x98\xc3\xbf|\xc2\x89PNG",
            "an image encoded as UTF-8 text",
            "undo it with data.decode('utf-8').encode('latin-1')",
        ),
        (rb"ffd8ff[0-9a-f]|89504e47", "hexadecimal text of an image", "decode it with bytes.fromhex"),
        (rb"%PDF-", "a PDF document", "convert its pages to images"),
        (
            rb"....ftyp(?:isom|iso[2-9]|mp4|avc1|M4V|qt  |3gp|dash)|\x1a\x45\xdf\xa3|RIFF....AVI ",
            "a video",
            "extract its frames",
        ),
        (rb"PAR1", "a Parquet file", "name it as --input"),
        (rb"\x89HDF", "an HDF5 file", _STORE),
        (rb"\0\x05\x16[\x00\x07]", "macOS metadata (AppleDouble)", "leave out files that begin with ._"),
        (
            rb"\x0a.{1,10}\x0a.{0,300}?(?:image/|encoded|label|feature)",
            "a serialized tf.train.Example",
            "name the file of records as --input",
        ),
        (rb"\0{8,}$", "only zero bytes, as after an interrupted download", _FETCH),
    )
)
_BASE64 = re.compile(rb"\s*(?:data:[\w/.+-]{0,60};base64,)?([A-Za-z0-9+/_-]{16,})")


def describe(start: bytes, formats: Sequence[ImageFormat]) -> str | None:
    """Returns what bytes are if they are no image, with advice; None if they are nothing known.

    Args:
      start: the first bytes, up to 4096.
      formats: the image formats, to name the image in base64 text.
    """
    encoded = _BASE64.match(start)
    if encoded is not None:
        text = encoded[1].translate(bytes.maketrans(b"-_", b"+/"))
        try:
            decoded = base64.b64decode(text[: len(text) // 4 * 4])
        except binascii.Error:
            decoded = b""
        for image_format in formats:
            if decoded and image_format.matches(decoded):
                return f"base64 text of a {image_format.title} image; decode it with base64.b64decode"
    for pattern, title, advice in _KINDS:
        if pattern.match(start):
            return f"{title}; {advice}"
    return None
