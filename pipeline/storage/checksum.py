"""CRC32C (Castagnoli, RFC 3720) by google-crc32c's C extension, and the checksum of a concatenation's suffix.

Without its C extension, google-crc32c falls back to Python, which is hundreds of times slower. In that case, every
function of this module raises `PipelineError`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import google_crc32c

from pipeline.core.errors import PipelineError

# From tensorflow/core/lib/hash/crc32c.h.
MASK_DELTA = 0xA282EAD8

_POLYNOMIAL = 0x82F63B78  # reversed bits: bit 31 is the coefficient of x**0


def _no_c_extension(*_: object) -> int:
    raise PipelineError(
        f"google-crc32c runs its {google_crc32c.implementation!r} implementation here, hundreds of times slower "
        "than the expected C extension: install a google-crc32c wheel made for this platform and Python version"
    )


_has_c_extension = google_crc32c.implementation == "c"

crc32c: Callable[[bytes], int] = google_crc32c.value if _has_c_extension else _no_c_extension
"""Returns the CRC32C of bytes, 0 to 2**32 - 1."""

extend_crc32c: Callable[[int, bytes], int] = google_crc32c.extend if _has_c_extension else _no_c_extension
"""Returns the CRC32C of a concatenation from the CRC32C of its head (first argument) and its tail (second)."""


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC32C of `data`, rotated and offset as TFRecord stores it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def unmasked(masked: int) -> int:
    """Returns the CRC32C that TFRecord stores as `masked`."""
    rotated = (masked - MASK_DELTA) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


def crc32c_of_end(whole: int, head: int, end_bytes: int) -> int:
    """Returns the CRC32C of the last `end_bytes` bytes of a sequence, without reading them.

    For polynomials over GF(2), modulo the CRC's polynomial, crc(AB) = crc(A) * x**(8 * len(B)) + crc(B).

    Args:
      whole: CRC32C of the sequence.
      head: CRC32C of the bytes before its end.
      end_bytes: length of its end in bytes.
    """
    return whole ^ _multiply(head, _power_of_x(8 * end_bytes))


def _multiply(a: int, b: int) -> int:
    product = 0
    while a:
        if a & 0x80000000:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@functools.lru_cache(maxsize=4096)
def _power_of_x(exponent: int) -> int:
    power = 0x80000000
    for bit in range(exponent.bit_length()):
        if exponent >> bit & 1:
            power = _multiply(power, _power_of_x_of_bit(bit))
    return power


@functools.cache
def _power_of_x_of_bit(bit: int) -> int:
    """Returns x**(2**bit)."""
    if bit == 0:
        return 0x40000000
    root = _power_of_x_of_bit(bit - 1)
    return _multiply(root, root)
