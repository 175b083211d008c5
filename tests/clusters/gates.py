"""An image that holds up whoever reads it: so a test knows that a job is under way, and where."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import psutil

from tests.clusters.clusters import Command


class Gate:
    """A named pipe in the place of a photo: its readers wait until the test opens the gate.

    A list file may name it; a directory search would ignore it.
    """

    def __init__(self, photo: Path) -> None:
        self._photo = photo
        self._image = photo.read_bytes()
        self._end = -1
        photo.unlink()
        os.mkfifo(photo)

    def is_reached(self) -> bool:
        """Says whether a process reads the image; from then on, it waits for the bytes."""
        if self._end < 0:
            try:
                self._end = os.open(self._photo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads
                    raise
        return self._end >= 0

    def readers(self) -> set[int]:
        """Returns the ids of the processes that wait at the gate, which must be reached."""
        pipe = os.fstat(self._end)
        found = set()
        for path in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                status = path.stat()
                if (status.st_dev, status.st_ino) == (pipe.st_dev, pipe.st_ino):
                    found.add(int(path.parts[2]))
        return found - {os.getpid()}

    def remove(self) -> None:
        """Puts the photo back in its place. Those who wait go on waiting."""
        photo = self._photo.with_name(f".{self._photo.name}")
        photo.write_bytes(self._image)
        photo.replace(self._photo)

    def open(self) -> None:
        """Gives the image to those who wait for it."""
        with contextlib.suppress(BrokenPipeError):  # they were killed
            os.write(self._end, self._image)
        os.close(self._end)
        self._end = -1


def wait_at(gate: Gate, command: Command) -> list[psutil.Process]:
    """Waits until the job of a command is under way; returns the SDK processes that wait at a gate."""
    command.until(gate.is_reached)
    command.until(gate.readers)
    return [psutil.Process(process) for process in gate.readers()]
