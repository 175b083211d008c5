"""The samples of a WebDataset shard: consecutive members of an archive with the same name, up to an extension."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.core.settings import InputConfig
from pipeline.images.formats.registry import EXTENSIONS
from pipeline.inputs.tar import Member

IMAGES = frozenset(extension[1:] for extension in EXTENSIONS)
"""Extensions of members that are images."""


@dataclass
class Sample:
    """A sample.

    Attributes:
      offset: of its first member.
      name: its name, without extension.
      members: its members by extension; the last one of an extension replaces earlier ones, as in an archive.
      data: the data of the members that are needed.
    """

    offset: int
    name: str
    members: dict[str, Member] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """End offset of its members (exclusive)."""
        return max(member.stop for member in self.members.values())


def split_name(name: str) -> tuple[str, str] | None:
    """Returns the sample and the extension of a member; None for a hidden file or a name without extension."""
    folder, base = posixpath.split(posixpath.normpath(name).lstrip("/"))
    stem, _, extension = base.partition(".")
    if not stem or not extension or any(part.startswith(".") for part in folder.split("/")):
        return None
    return posixpath.join(folder, stem), extension.lower()


def image_of(members: Iterable[str], config: InputConfig) -> str:
    """Returns the extension of the image among those of a sample; empty if there is none, or more than one."""
    if config.image_feature is not None:
        return config.image_feature if config.image_feature in members else ""
    images = [name for name in members if name in IMAGES]
    return images[0] if len(images) == 1 else ""


def advice(members: Sequence[str], config: InputConfig) -> str:
    """Returns the reason why none of the members of a sample is its image, and what to do."""
    images = [name for name in members if name in IMAGES]
    if config.image_feature is not None:
        reason = f"but no {config.image_feature}"
    else:
        reason = "of which several are images" if images else "none of which is an image by its extension"
    return f"has {', '.join(members)}, {reason}; say --image_feature={(images or members)[0]}"
