"""Encodes images in layouts that few programs write: Pillow's encoders, tifffile's, and our own of PNG and BMP."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image


def save(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    samples: np.ndarray,
    depth: int,
    colour: int,
    chunks: bytes = b"",
    *,
    interlaced: bool = False,
    filters: bool = False,
) -> bytes:
    """Returns a PNG of samples [H, W, C]: of one filter or all five, in one pass or Adam7's seven."""
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    step, raw = max(1, samples.shape[2] * depth // 8), bytearray()
    for top, left, down, right in passes:
        part = samples[top::down, left::right]
        previous = None
        for number, row in enumerate(part if part.shape[1] else ()):
            values = row.reshape(-1)
            if depth < 8:
                bits = np.unpackbits(values.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
                line = np.packbits(bits.reshape(-1))
            else:
                line = np.frombuffer(values.astype(">u2" if depth == 16 else np.uint8).tobytes(), np.uint8)
            kind = number % 3 if filters else 0  # none, left, above: enough to need each row's own filter
            left_line = np.concatenate((np.zeros(step, np.uint8), line))[: len(line)]
            above = np.zeros_like(line) if previous is None else previous
            raw += bytes((kind,)) + (line - (0, left_line, above)[kind]).astype(np.uint8).tobytes()
            previous = line
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, interlaced)
    parts = (
        png_chunk(b"IHDR", header) + chunks + png_chunk(b"IDAT", zlib.compress(bytes(raw))) + png_chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + parts


def bmp(
    words: np.ndarray,
    bits: int,
    compression: int,
    *,
    masks: tuple[int, ...] = (),
    header_bytes: int = 40,
    palette: bytes = b"",
    top_down: bool = False,
) -> bytes:
    """Returns a BMP of words [H, W] of 1, 4, 8, 16 or 32 bits, or [H, W, 3] for 24."""
    rows = []
    for row in words if top_down else words[::-1]:
        if bits < 8:
            line = np.packbits(
                np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].reshape(-1)
            ).tobytes()
        else:
            line = row.astype({8: "<u1", 16: "<u2", 24: "<u1", 32: "<u4"}[bits]).tobytes()
        rows.append(line + bytes(-len(line) % 4))
    body = b"".join(rows)
    height = -len(words) if top_down else len(words)
    fields = struct.pack(f"<{len(masks)}I", *masks)
    header = struct.pack(
        "<IiiHHIIiiII", header_bytes, words.shape[1], height, 1, bits, compression, len(body), 0, 0, 0, 0
    )
    header = (header + fields).ljust(header_bytes, b"\0") + palette
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + body


def tiff(pixels: np.ndarray, *, byteorder: str = "<", bigtiff: bool = False, **tags: object) -> bytes:
    """Returns a TIFF of one page."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=byteorder, bigtiff=bigtiff) as writer:
        writer.write(pixels, metadata=None, software=False, **tags)
    return file.getvalue()
