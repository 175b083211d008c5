"""Tar archives, as the tests write them."""

import io
import tarfile
from collections.abc import Iterable


def make_tar(members: Iterable[tuple[str, bytes]], *, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    """Returns an archive of files, given by their names and data."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive.getvalue()
