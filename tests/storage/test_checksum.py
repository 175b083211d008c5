import importlib.util

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import PipelineError
from pipeline.storage import checksum


def test_check_value() -> None:
    # RFC 3720, B.4, and the customary check value of a CRC.
    assert checksum.crc32c(b"123456789") == 0xE3069283
    assert checksum.crc32c(bytes(32)) == 0x8A9136AA


def test_extending() -> None:
    assert checksum.extend_crc32c(checksum.crc32c(b"12345"), b"6789") == 0xE3069283


@settings(deadline=None)
@given(st.binary())
def test_mask_is_undone(data: bytes) -> None:
    assert checksum.unmasked(checksum.masked_crc32c(data)) == checksum.crc32c(data)


@settings(deadline=None)
@given(st.binary(), st.binary())
def test_checksum_of_the_end_follows_from_whole_and_head(head: bytes, end: bytes) -> None:
    whole = checksum.crc32c(head + end)
    assert checksum.crc32c_of_end(whole, checksum.crc32c(head), len(end)) == checksum.crc32c(end)


def test_checksum_of_a_long_end() -> None:
    head, end = b"head", b"end" * 1_000_000
    assert checksum.crc32c_of_end(checksum.crc32c(head + end), checksum.crc32c(head), len(end)) == checksum.crc32c(end)


def test_without_the_c_extension_every_use_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(google_crc32c, "implementation", "python")
    spec = importlib.util.spec_from_file_location("crc32c_without_c", checksum.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for use in (lambda: module.crc32c(b""), lambda: module.extend_crc32c(0, b""), lambda: module.masked_crc32c(b"")):
        with pytest.raises(PipelineError, match=r"google-crc32c runs its 'python' implementation here.*install a"):
            use()
