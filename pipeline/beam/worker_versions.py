"""The versions that a launcher and its workers must share."""

from __future__ import annotations

import functools
import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

import apache_beam

from pipeline.core.errors import UsageError

_DIGITS = 12


@dataclass(frozen=True)
class Versions:
    """The versions of a process.

    Attributes:
      python: minor version of Python, such as `3.11`: bytecode that a launcher pickles runs on no other one.
      beam: version of Apache Beam.
      package: digest of this package's code. The number of a release would not tell two commits apart.
    """

    python: str
    beam: str
    package: str

    @classmethod
    def here(cls) -> Versions:
        """Returns the versions of this process."""
        python = ".".join(platform.python_version_tuple()[:2])
        return cls(python, apache_beam.__version__, _code_digest())

    def check(self) -> None:
        """Checks, on a worker, that it has these versions of the launcher.

        Raises:
          UsageError: it has not.
        """
        worker = Versions.here()
        pairs = (
            ("Python", worker.python, self.python),
            ("Apache Beam", worker.beam, self.beam),
            ("the code of this package with the digest", worker.package, self.package),
        )
        differences = [f"{name} {there}, the launcher has {here}" for name, there, here in pairs if there != here]
        if differences:
            raise UsageError(
                f"a worker has another version than the launcher: {'; '.join(differences)}; install the launcher's "
                "versions where the workers run, such as in their image"
            )


@functools.cache
def _code_digest() -> str:
    """Returns the digest of this package's modules, by their names and contents."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(code)}\n".encode() + code)
    return digest.hexdigest()[:_DIGITS]
