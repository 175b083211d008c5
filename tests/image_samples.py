"""Small encoded images, one for each format and pixel mode."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image

HEIGHT, WIDTH = 48, 60


def pixels(channels: int = 3, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise: compresses like a photo, and no two places are alike."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (5 + c) + seed) + np.cos(columns / (7 - c)) for c in range(channels)]
    smooth = np.stack(waves, axis=-1) * 55 + 128
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def save(image: Image.Image | np.ndarray, image_format: str, **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def heif(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file, **{"quality": 90, "chroma": 444, **options})
    return file.getvalue()


def image(mode: str = "RGB", seed: int = 0) -> Image.Image:
    return Image.fromarray(pixels(4, seed=seed), "RGBA" if mode != "CMYK" else "CMYK").convert(mode)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    samples: np.ndarray, depth: int, colour_type: int, before_pixels: bytes = b"", after_pixels: bytes = b""
) -> bytes:
    """A PNG of unfiltered rows of big-endian samples."""
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            before_pixels,
            png_chunk(b"IDAT", zlib.compress(rows)),
            after_pixels,
            png_chunk(b"IEND", b""),
        )
    )


def tiff(tags: dict[int, tuple[int, int, bytes]], rest: bytes = b"") -> bytes:
    """A little-endian TIFF whose one directory holds `tags`: type, count, four bytes of value or offset."""
    entries = b"".join(struct.pack("<HHI", t, k, n) + value for t, (k, n, value) in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + rest


def samples_of_16_bits(channels: int) -> np.ndarray:
    shape = (HEIGHT, WIDTH, channels)[: 3 if channels > 1 else 2]
    return np.random.default_rng(1).integers(0, 1 << 16, shape).astype(">u2")


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def as_ycck(jpeg: bytes) -> bytes:
    """The same samples, declared to be YCCK: the last byte of Adobe's segment is the colour transform."""
    end = jpeg.index(b"\xff\xee") + 2 + 14
    return jpeg[: end - 1] + b"\x02" + jpeg[end:]


_CMYK_JPEG = save(image("CMYK"), "JPEG", quality=90)
_ANIMATION = [image("RGB", seed) for seed in range(3)]

JPEGS = {
    "jpeg 4:4:4": save(image(), "JPEG", subsampling=0),
    "jpeg 4:2:2": save(image(), "JPEG", subsampling=1),
    "jpeg 4:2:0": save(image(), "JPEG", subsampling=2),
    "jpeg progressive": save(image(), "JPEG", progressive=True),
    "jpeg restart markers": save(image(), "JPEG", restart_marker_rows=1),
    "jpeg grey": save(image("L"), "JPEG"),
    "jpeg rgb": save(image(), "JPEG", keep_rgb=True),
    "jpeg cmyk adobe": _CMYK_JPEG,
    "jpeg cmyk": without_adobe_marker(_CMYK_JPEG),
    "jpeg ycck": as_ycck(_CMYK_JPEG),
}
# What TensorFlow's own decoders decode, and how.
OTHERS_WITH_REFERENCE = {
    **{f"png {mode}": save(image(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "png palette with alpha": save(image("RGBA").quantize(16), "PNG"),
    "png 16-bit grey": png(samples_of_16_bits(1), 16, 0),
    "png 16-bit rgb": png(samples_of_16_bits(3), 16, 2),
    "png 16-bit grey and alpha": png(samples_of_16_bits(2), 16, 4),
    "png 16-bit rgb and alpha": png(samples_of_16_bits(4), 16, 6),
    "png animation": save(_ANIMATION[0], "PNG", save_all=True, append_images=_ANIMATION[1:]),
    "gif": save(image("P"), "GIF"),
    "gif animation": save(_ANIMATION[0], "GIF", save_all=True, append_images=_ANIMATION[1:]),
    "bmp RGB": save(image(), "BMP"),
    "bmp L": save(image("L"), "BMP"),
    "webp lossy": save(image(), "WEBP"),
    "webp lossless": save(image(), "WEBP", lossless=True),
}
OTHERS = {
    "bmp 1": save(image("1"), "BMP"),
    "bmp P": save(image("P"), "BMP"),
    "bmp RGBA": save(image("RGBA"), "BMP"),
    "webp alpha": save(image("RGBA"), "WEBP", lossless=True, exact=True),
    "webp animation": save(_ANIMATION[0], "WEBP", lossless=True, save_all=True, append_images=_ANIMATION[1:]),
    **{f"tiff {mode}": save(image(mode), "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")},
    **{
        f"tiff {name}": save(image(), "TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    },
    "tiff 16-bit grey": save(Image.fromarray(samples_of_16_bits(1).astype("<u2")), "TIFF"),
    "tiff big": save(image(), "TIFF", big_tiff=True),
    "avif": save(image(), "AVIF", quality=90, subsampling="4:4:4", max_threads=1),
    "avif alpha": save(image("RGBA"), "AVIF", quality=90, subsampling="4:4:4", max_threads=1),
    "avif grey": save(image("L"), "AVIF", quality=90, max_threads=1),
    "avif animation": save(_ANIMATION[0], "AVIF", save_all=True, append_images=_ANIMATION[1:], max_threads=1),
    "heif": heif(image()),
    "heif grey": heif(image("L")),
    "heif alpha": heif(image("RGBA")),
    "tiff pages": save(_ANIMATION[0], "TIFF", save_all=True, append_images=_ANIMATION[1:]),
}
ALL = {**JPEGS, **OTHERS_WITH_REFERENCE, **OTHERS}
ONE_OF_EACH_FORMAT = {
    "jpeg": JPEGS["jpeg 4:4:4"],
    "png": OTHERS_WITH_REFERENCE["png RGB"],
    "gif": OTHERS_WITH_REFERENCE["gif"],
    "bmp": OTHERS_WITH_REFERENCE["bmp RGB"],
    "webp": OTHERS_WITH_REFERENCE["webp lossy"],
    "tiff": OTHERS["tiff RGB"],
    "avif": OTHERS["avif"],
    "heif": OTHERS["heif"],
}
