"""Odd images, a function for each format: every depth, colour and layout that its encoders write, and some more.

An image's truth is known from how it is made: its pixels, or the reasons for which it may be refused.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pillow_heif
import tifffile
from PIL import Image

from benchmarks.torture_encoders import bmp, exif_of, png, png_chunk, save, tiff

HEIGHT, WIDTH = 34, 43
BROKEN = frozenset({"truncated", "not_an_image", "empty"})
UNKNOWN = frozenset({"unsupported_format"})


@dataclass(frozen=True)
class OddImage:
    """One image and its truth.

    Attributes:
      name: unique.
      data: the encoded bytes.
      pixels: uint8 [H, W, 3], RGB, that a decoder returns; None if it returns none.
      tolerance: largest difference from `pixels` of a right decoder: lossy formats leave room.
      reasons: why the image may be refused; empty if it must be decoded.
    """

    name: str
    data: bytes
    pixels: np.ndarray | None = None
    tolerance: int = 0
    reasons: frozenset[str] = frozenset()


def smooth(channels: int = 3, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Returns smooth colours with a little noise, uint8 [H, W, C]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (6 + c) + seed) + np.cos(columns / (8 - c)) for c in range(channels)]
    return np.clip(np.stack(waves, axis=-1) * 55 + 128 + rng.normal(0, 3, (height, width, channels)), 0, 255).astype(
        np.uint8
    )


def noise(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 16, shape)  # compresses well
    return (coarse * (np.iinfo(dtype).max // 15)).astype(dtype) ^ np.arange(shape[1], dtype=dtype).reshape(
        1, -1, *[1] * (len(shape) - 2)
    )


def as_grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)


def jpegs() -> Iterator[OddImage]:
    rgb, grey, ink = smooth(), smooth(1)[..., 0], Image.fromarray(smooth(4), "CMYK")
    for subsampling in (0, 1, 2):
        for quality in (25, 75, 95):
            for name, options in {
                "": {}, " progressive": {"progressive": True}, " restart": {"restart_marker_blocks": 2},
                " optimized": {"optimize": True},
            }.items():  # fmt: skip
                data = save(rgb, "JPEG", subsampling=subsampling, quality=quality, **options)
                yield OddImage(f"jpeg 4:{['444', '422', '420'][subsampling]} q{quality}{name}", data)
    for name, options in {"": {}, " progressive": {"progressive": True}}.items():
        yield OddImage(f"jpeg grey{name}", save(grey, "JPEG", **options))
        yield OddImage(f"jpeg rgb without transform{name}", save(rgb, "JPEG", keep_rgb=True, **options))
        adobe = save(ink, "JPEG", **options)
        yield OddImage(f"jpeg cmyk adobe{name}", adobe)
        end = adobe.index(b"\xff\xee") + 16
        yield OddImage(f"jpeg ycck adobe{name}", adobe[: end - 1] + b"\x02" + adobe[end:])
        yield OddImage(f"jpeg cmyk plain{name}", adobe[: end - 16] + adobe[end:])
    for orientation in (1, 3, 6, 8, 9):
        yield OddImage(f"jpeg exif {orientation}", save(rgb, "JPEG", exif=exif_of(orientation)))
    plain = save(rgb, "JPEG")
    scan = plain.index(b"\xff\xda")
    for height, width in ((1, 1), (1, 40), (40, 1), (7, 9), (8, 8), (17, 16)):
        yield OddImage(f"jpeg {height}x{width}", save(smooth(3, 0, height, width), "JPEG"))
    for name, data in {
        "stray bytes before the scan": plain[:scan] + b"stray" + plain[scan:],
        "fill bytes": plain[:2] + b"\xff\xff" + plain[2:],
        "bytes after the end": plain + b"\0" * 100,
        "another image after the end": plain + save(grey, "JPEG"),
        "comment": plain[:2] + b"\xff\xfe\0\x09comment" + plain[2:],
        "unknown version": plain.replace(b"JFIF\0\1", b"JFIF\0\7"),
        "thumbnail in exif": plain[:2]
        + b"\xff\xe1"
        + struct.pack(">H", 8 + scan)
        + b"Exif\0\0"
        + plain[:scan]
        + plain[2:],
    }.items():
        yield OddImage(f"jpeg {name}", data)
    for process, bits, components in (
        (0xC3, 8, 3),
        (0xC1, 12, 3),
        (0xC5, 8, 1),
        (0xCB, 8, 3),
        (0xC0, 8, 2),
        (0xF7, 8, 3),
    ):
        frame = struct.pack(">HBHHB", 8 + 3 * components, bits, 8, 8, components) + bytes(3 * components)
        yield OddImage(
            f"jpeg SOF {process:x} of {bits} bits", b"\xff\xd8\xff" + bytes([process]) + frame + plain[scan:],
            reasons=UNKNOWN | BROKEN,
        )  # fmt: skip


def pngs() -> Iterator[OddImage]:
    kinds = {0: (1, (1, 2, 4, 8, 16)), 2: (3, (8, 16)), 3: (1, (1, 2, 4, 8)), 4: (2, (8, 16)), 6: (4, (8, 16))}
    palette = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
    for colour, (channels, depths) in kinds.items():
        for depth in depths:
            samples = np.random.default_rng(depth).integers(0, 1 << depth, (HEIGHT, WIDTH, channels))
            samples[::2] = samples[:1]
            if colour == 3:
                pixels, chunks = palette[samples[..., 0]], png_chunk(b"PLTE", palette[: 1 << depth].tobytes())
            else:
                upper = samples >> 8 if depth == 16 else samples * (255 // ((1 << depth) - 1))
                pixels, chunks = (as_grey(upper[..., 0]) if channels < 3 else upper[..., :3]).astype(np.uint8), b""
            for name, interlaced, filters in (("", False, False), (" adam7", True, False), (" filters", False, True)):
                data = png(samples, depth, colour, chunks, interlaced=interlaced, filters=filters)
                yield OddImage(f"png colour {colour} of {depth} bits{name}", data, pixels)
            transparent = {0: b"\0\1", 2: b"\0\1\0\1\0\1", 3: bytes(range(1 << min(depth, 7)))}.get(colour)
            if transparent is not None:
                data = png(samples, depth, colour, chunks + png_chunk(b"tRNS", transparent))
                yield OddImage(f"png colour {colour} of {depth} bits tRNS", data, pixels)
    rgb = smooth()
    for name, chunk in {
        "gamma": png_chunk(b"gAMA", struct.pack(">I", 100_000)),
        "unknown chunk": png_chunk(b"teSt", b"?"),
        "damaged profile": png_chunk(b"iCCP", b"x\0\0damaged"),
        "background": png_chunk(b"bKGD", b"\0\1\0\2\0\3"),
        "orientation": png_chunk(b"eXIf", exif_of(6).tobytes()[6:]),
    }.items():
        yield OddImage(f"png {name}", png(rgb, 8, 2, chunk), rgb)
    for height, width in ((1, 1), (1, 40), (40, 1)):
        small = smooth(3, 0, height, width)
        yield OddImage(f"png {height}x{width}", png(small, 8, 2), small)
    frames = [Image.fromarray(smooth(3, seed)) for seed in range(3)]
    yield OddImage("png animation", save(frames[0], "PNG", save_all=True, append_images=frames[1:]), rgb)


def gifs() -> Iterator[OddImage]:
    rng = np.random.default_rng(5)
    for colours in (2, 4, 16, 256):
        indices, palette = (
            rng.integers(0, colours, (HEIGHT, WIDTH), np.uint8),
            rng.integers(0, 256, (colours, 3), np.uint8),
        )
        indices[::2] = indices[:1]
        image = Image.fromarray(indices, "P")
        image.putpalette(palette.tobytes())
        for name, options in {
            "": {}, " transparent": {"transparency": 1}, " not interlaced": {"interlace": 0},
            " comment": {"comment": b"comment"}, " background": {"background": 1},
        }.items():  # fmt: skip
            yield OddImage(
                f"gif of {colours} colours{name}", save(image, "GIF", optimize=False, **options), palette[indices]
            )
        frames = [image, image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
        data = save(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0, optimize=False)
        yield OddImage(f"gif of {colours} colours animation", data, palette[indices])


def field_colours(words: np.ndarray, masks: tuple[int, ...]) -> np.ndarray:
    """Returns the colours of words whose bits `masks` assign to red, green and blue."""
    channels = []
    for mask in masks[:3]:
        shift = (mask & -mask).bit_length() - 1
        channels.append(((words & mask) >> shift).astype(float) * 255 / (mask >> shift))
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def bmps() -> Iterator[OddImage]:
    rng = np.random.default_rng(7)
    for bits in (1, 4, 8):
        indices, palette = rng.integers(0, 1 << bits, (HEIGHT, WIDTH)), rng.integers(0, 256, (1 << bits, 4), np.uint8)
        for top_down in (False, True):
            name = f"bmp of {bits} bits{' from the top' if top_down else ''}"
            yield OddImage(
                name, bmp(indices, bits, 0, palette=palette.tobytes(), top_down=top_down), palette[indices][..., 2::-1]
            )
    rgb = smooth()
    for top_down in (False, True):
        name = f"bmp of 24 bits{' from the top' if top_down else ''}"
        yield OddImage(name, bmp(rgb[..., ::-1], 24, 0, top_down=top_down), rgb)
    words = rng.integers(0, 1 << 32, (HEIGHT, WIDTH))
    words[::2] = words[:1]
    layouts = {
        "bgra": (0xFF0000, 0xFF00, 0xFF, 0xFF000000), "bgrx": (0xFF0000, 0xFF00, 0xFF, 0),
        "rgba": (0xFF, 0xFF00, 0xFF0000, 0xFF000000), "argb": (0xFF00, 0xFF0000, 0xFF000000, 0xFF),
        "abgr": (0xFF000000, 0xFF0000, 0xFF00, 0xFF), "rgbx": (0xFF, 0xFF00, 0xFF0000, 0),
        "10 bits": (0x3FF00000, 0xFFC00, 0x3FF, 0),
    }  # fmt: skip
    yield OddImage("bmp of 32 bits", bmp(words, 32, 0), field_colours(words, layouts["bgrx"]))
    yield OddImage(
        "bmp of 16 bits", bmp(words & 0xFFFF, 16, 0), field_colours(words & 0xFFFF, (0x7C00, 0x3E0, 0x1F)), 7
    )
    for header_bytes in (40, 56, 108, 124):
        for name, masks in layouts.items():
            data = bmp(words, 32, 3, masks=masks[: 3 if header_bytes == 40 else 4], header_bytes=header_bytes)
            yield OddImage(
                f"bmp fields {name} header {header_bytes}", data, field_colours(words, masks), int(name == "10 bits")
            )
    for name, masks in {
        "565": (0xF800, 0x7E0, 0x1F),
        "555": (0x7C00, 0x3E0, 0x1F),
        "4444": (0xF00, 0xF0, 0xF, 0xF000),
    }.items():
        data = bmp(words & 0xFFFF, 16, 3, masks=(*masks, 0)[:4], header_bytes=108)
        yield OddImage(f"bmp fields {name}", data, field_colours(words & 0xFFFF, masks), 7)


def webps() -> Iterator[OddImage]:
    rgba = smooth(4)
    for quality in (20, 60, 95):
        for method in (0, 4, 6):
            yield OddImage(f"webp q{quality} m{method}", save(rgba[..., :3], "WEBP", quality=quality, method=method))
            yield OddImage(
                f"webp alpha q{quality} m{method}", save(rgba, "WEBP", quality=quality, method=method, exact=True)
            )
    frames = [Image.fromarray(smooth(4, seed)) for seed in range(3)]
    yield OddImage("webp lossless", save(rgba[..., :3], "WEBP", lossless=True), rgba[..., :3])
    yield OddImage("webp lossless alpha", save(rgba, "WEBP", lossless=True, exact=True), rgba[..., :3])
    animation = save(frames[0], "WEBP", lossless=True, exact=True, save_all=True, append_images=frames[1:])
    yield OddImage("webp animation", animation, rgba[..., :3])
    yield OddImage("webp exif", save(rgba[..., :3], "WEBP", lossless=True, exif=exif_of(6)), rgba[..., :3])


def tiffs() -> Iterator[OddImage]:
    for byteorder in "<>":
        for bigtiff in (False, True):
            layout = {"byteorder": byteorder, "bigtiff": bigtiff}
            for dtype in (np.uint8, np.uint16):
                for channels, extra in ((1, ""), (2, "unassalpha"), (2, "unspecified"), (3, ""), (4, "unassalpha")):
                    pixels = noise((HEIGHT, WIDTH, channels), dtype)
                    upper = pixels if dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
                    truth = as_grey(upper[..., 0]) if channels < 3 else upper[..., :3]
                    tags: dict = {"photometric": "minisblack" if channels < 3 else "rgb"}
                    if extra:
                        tags["extrasamples"] = [extra]
                    samples = pixels[..., 0] if channels == 1 else pixels
                    name = f"tiff {byteorder}{'big' if bigtiff else ''} {8 * pixels.itemsize} bits {channels} {extra}"
                    yield OddImage(f"{name} zlib", tiff(samples, compression="zlib", **layout, **tags), truth)
                    if extra != "unspecified":
                        yield OddImage(f"{name} lzw", tiff(samples, compression="lzw", **layout, **tags), truth)
                    if channels > 1 and not bigtiff and extra != "unspecified":
                        planes = np.moveaxis(pixels, -1, 0)
                        yield OddImage(f"{name} planes", tiff(planes, planarconfig="separate", **layout, **tags), truth)
    rgb, grey = smooth(), smooth(1)[..., 0]
    for compression in ("packbits", "zstd", "lzma", "webp", "jpeg2000", "jpegxl", "lerc", "png", "jpegxr"):
        options = {"lossless": True} if compression in ("webp", "jpegxl") else {}
        data = tiff(rgb, photometric="rgb", compression=compression, compressionargs=options)
        yield OddImage(f"tiff {compression}", data, rgb, 2 if compression == "jpegxr" else 0, UNKNOWN)
    for code in (50013, 34713, 65000):
        data = tiff(rgb, photometric="rgb")
        place = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
        yield OddImage(
            f"tiff compression {code}", data[:place] + struct.pack("<H", code) + data[place + 2 :], reasons=UNKNOWN
        )
    yield OddImage("tiff jpeg", tiff(rgb, photometric="rgb", compression="jpeg"), rgb, 40)
    yield OddImage("tiff tiles", tiff(rgb, photometric="rgb", tile=(16, 16)), rgb)
    yield OddImage("tiff predictor", tiff(rgb, photometric="rgb", compression="zlib", predictor=True), rgb)
    yield OddImage("tiff one row a strip", tiff(rgb, photometric="rgb", rowsperstrip=1), rgb)
    yield OddImage("tiff white is zero", tiff(~grey, photometric="miniswhite"), as_grey(grey))
    yield OddImage(
        "tiff of 1 bit", tiff(grey > 128, photometric="minisblack"), as_grey((grey > 128).astype(np.uint8) * 255)
    )
    palette = np.random.default_rng(9).integers(0, 256, (3, 256)).astype(np.uint16)
    yield OddImage(
        "tiff palette", tiff(grey, photometric="palette", colormap=palette * 257), palette.T[grey].astype(np.uint8)
    )
    ink = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    ink[..., :3] = 255 - rgb
    yield OddImage("tiff cmyk", tiff(ink, photometric="separated"), rgb)
    yield OddImage(
        "tiff five channels",
        tiff(smooth(5), photometric="rgb", extrasamples=["unassalpha", "unspecified"]),
        smooth(5)[..., :3],
    )
    for name, samples, photometric in (
        ("float16", np.float16(grey), "minisblack"), ("float32", np.float32(grey), "minisblack"),
        ("float64", np.float64(grey), "minisblack"), ("uint32", np.uint32(grey), "minisblack"),
        ("int16", np.int16(grey), "minisblack"), ("rgb float32", np.float32(rgb), "rgb"), ("lab", rgb, "cielab"),
    ):  # fmt: skip
        yield OddImage(f"tiff {name}", tiff(samples, photometric=photometric), reasons=UNKNOWN)
    thumbnail = smooth(3, 1, 12, 16)
    sensor = {
        "photometric": "cfa",
        "extratags": [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes((0, 1, 1, 2)), True)],
    }
    for name, first, second, tags in (
        ("reduced", {"subfiletype": 1}, rgb, {"photometric": "rgb"}),
        ("sub-page", {"subifds": 1}, rgb, {"photometric": "rgb"}),
        ("raw", {"subfiletype": 1}, np.uint16(grey), sensor), ("raw sub-page", {"subifds": 1}, np.uint16(grey), sensor),
        ("document", {}, rgb, {"photometric": "rgb"}),
    ):  # fmt: skip
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            writer.write(thumbnail, photometric="rgb", metadata=None, software=False, **first)
            writer.write(second, metadata=None, software=False, **tags)
        is_raw = name.startswith("raw")
        truth = None if is_raw else thumbnail if name == "document" else rgb
        yield OddImage(f"tiff pages {name}", file.getvalue(), truth, reasons=UNKNOWN if is_raw else frozenset())


def avifs() -> Iterator[OddImage]:
    rgba = smooth(4)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for quality in (60, 95):
            data = save(rgba[..., :3], "AVIF", subsampling=subsampling, quality=quality, speed=8, max_threads=1)
            yield OddImage(f"avif {subsampling} q{quality}", data, rgba[..., :3], 60)
    options = {"quality": 95, "subsampling": "4:4:4", "speed": 8, "max_threads": 1}
    yield OddImage("avif alpha", save(rgba, "AVIF", **options), rgba[..., :3], 30)
    yield OddImage(
        "avif grey", save(rgba[..., 0], "AVIF", **{**options, "subsampling": "4:0:0"}), as_grey(rgba[..., 0]), 30
    )
    frames = [Image.fromarray(smooth(3, seed)) for seed in range(2)]
    yield OddImage(
        "avif animation", save(frames[0], "AVIF", save_all=True, append_images=frames[1:], **options), smooth(), 30
    )
    yield OddImage("avif turned", save(rgba[..., :3], "AVIF", exif=exif_of(6), **options), rgba[..., :3], 30)


def heifs() -> Iterator[OddImage]:
    for size in ((64, 64), (HEIGHT, WIDTH)):
        rgb = smooth(3, 0, *size)
        for chroma in (420, 422, 444):
            file = io.BytesIO()
            pillow_heif.from_pillow(Image.fromarray(rgb)).save(file, quality=90, chroma=chroma)
            yield OddImage(f"heif {size[0]}x{size[1]} {chroma}", file.getvalue(), rgb, 60, UNKNOWN)
    for mode, channels in (("RGB;16", 3), ("L;16", 1), ("RGBA;16", 4)):
        samples = smooth(channels, 0, 64, 64).astype(np.uint16) * 257
        file = io.BytesIO()
        pillow_heif.from_bytes(mode, (64, 64), samples.tobytes()).save(file, quality=90, chroma=444)
        upper = (samples >> 8).astype(np.uint8)
        yield OddImage(
            f"heif {mode}", file.getvalue(), as_grey(upper[..., 0]) if channels == 1 else upper[..., :3], 30, UNKNOWN
        )
