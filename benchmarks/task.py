"""The task of a peer, and the process that runs it: `python -m benchmarks.task PEER TASK.json`."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """Images to turn into vectors.

    Attributes:
      files: TFRecord files of `tf.train.Example` with the features `image/encoded` and `id`.
      module: directory of the module.
      sha256: the module's digest.
      signature: of the module, to call.
      input_key: input of the signature.
      output_key: output of the signature.
      height: of the network's input, in pixels.
      width: of the network's input, in pixels.
      tags: of the module's graph.
      output: an empty directory for the vectors.
      threads: the number of cores.
      options: of the peer.
    """

    files: tuple[str, ...]
    module: str
    sha256: str
    signature: str
    input_key: str
    output_key: str
    height: int
    width: int
    tags: tuple[str, ...]
    output: str
    threads: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Task:
        fields = json.loads(path.read_text())
        for name in ("files", "tags"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def main() -> None:
    """Runs one peer; the last line on stdout is JSON with the seconds to exclude from its time."""
    peer, path = sys.argv[1:]
    started = time.monotonic()
    excluded = importlib.import_module(f"benchmarks.peers.{peer}").run(Task.read(Path(path)))
    print(json.dumps({"excluded_s": excluded or 0.0, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
