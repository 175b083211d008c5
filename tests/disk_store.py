"""A file system of Beam with a scheme of its own: `disk:///path` is the file `/path` of this machine.

It has directories, as HDFS has: a file can be moved to an existing directory only.
"""

from __future__ import annotations

from typing import Any

from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

SCHEME = "disk"


def _local(path: str) -> str:
    return path.removeprefix(f"{SCHEME}://")


def _located(item: FileMetadata) -> FileMetadata:
    return FileMetadata(f"{SCHEME}://{item.path}", item.size_in_bytes, item.last_updated_in_seconds)


class DiskFileSystem(LocalFileSystem):
    @classmethod
    def scheme(cls) -> str:
        return SCHEME

    def mkdirs(self, path: str) -> None:
        super().mkdirs(_local(path))

    def _list(self, dir_or_prefix: str) -> Any:
        yield from map(_located, super()._list(_local(dir_or_prefix)))

    def _url_dirname(self, url_or_path: str) -> str:
        return f"{SCHEME}://{super()._url_dirname(_local(url_or_path))}"

    def create(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        return super().create(_local(path), mime_type, compression_type)

    def open(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        return super().open(_local(path), mime_type, compression_type)

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        super().rename([*map(_local, source_file_names)], [*map(_local, destination_file_names)])

    def exists(self, path: str) -> bool:
        return super().exists(_local(path))

    def metadata(self, path: str) -> FileMetadata:
        return _located(super().metadata(_local(path)))

    def delete(self, paths: list[str]) -> None:
        LocalFileSystem(None).delete([*map(_local, paths)])
