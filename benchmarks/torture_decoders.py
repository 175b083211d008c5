"""The decoders that the torture compares, each in a process of its own: a crash or a hang is an outcome."""

import contextlib
import importlib.util
import io
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

import numpy as np

TIME_LIMIT_S = 10.0
_START_LIMIT_S = 120.0

Outcome = Literal["pixels", "refused", "crashed", "hung"]


@dataclass(frozen=True)
class Answer:
    """What a decoder did with one image.

    Attributes:
      outcome: whether it returned pixels, refused the image, died, or took more than `TIME_LIMIT_S`.
      pixels: uint8 [H, W, 3], RGB, if it returned them.
      reason: of a refusal; empty for decoders without reasons.
      message: of a refusal, or of a report that the image is damaged.
    """

    outcome: Outcome
    pixels: np.ndarray | None = None
    reason: str = ""
    message: str = ""


def ours(data: bytes) -> Answer:
    from pipeline.core.errors import ImageError
    from pipeline.images.decoder import ImageDecoder
    from pipeline.images.headers import read_header

    damage: list[str] = []
    try:
        header = read_header(data)
        pixels = np.empty((header.height, header.width, 3), np.uint8)
        ImageDecoder(header.height, header.width)(data, pixels, report_damage=damage.append)
    except ImageError as error:
        return Answer("refused", reason=error.reason, message=str(error))
    except MemoryError as error:  # of the benchmark's own array, which no limit bounds
        return Answer("refused", reason="too_large", message=str(error))
    return Answer("pixels", pixels, message="; ".join(damage))


def tensorflow(data: bytes) -> Answer:
    import tensorflow as tf

    if data.startswith(b"\xff\xd8\xff"):
        return Answer("pixels", tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy())
    return Answer("pixels", tf.io.decode_image(data, channels=3, expand_animations=False).numpy())


def opencv(data: bytes) -> Answer:
    import cv2

    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return Answer("refused") if found is None else Answer("pixels", found[..., ::-1])


def pillow(data: bytes) -> Answer:
    from PIL import Image

    return Answer("pixels", np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def tifffile(data: bytes) -> Answer:
    import tifffile as library

    with library.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        found, axes = page.asarray(maxworkers=1), page.axes
        if page.photometric not in (1, 2) or found.dtype not in (np.uint8, np.uint16):
            return Answer("refused")
    samples = np.moveaxis(found, 0, -1) if axes == "SYX" else found.reshape(*found.shape[:2], -1)
    samples = samples if samples.dtype == np.uint8 else (samples >> 8).astype(np.uint8)
    return Answer("pixels", samples[..., :3] if samples.shape[2] > 2 else np.repeat(samples[..., :1], 3, axis=2))


def torchvision(data: bytes) -> Answer:
    import torch
    from torchvision.io import ImageReadMode, decode_image

    found = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    return Answer("pixels", np.moveaxis(found.numpy(), 0, -1))


def daft(data: bytes) -> Answer:
    import daft as library

    frame = library.from_pydict({"data": [data]})
    (found,) = frame.select(library.col("data").image.decode(mode="RGB")).to_pydict()["data"]
    return Answer("pixels", np.asarray(found))


DECODERS: dict[str, Callable[[bytes], Answer]] = {
    "this pipeline": ours,
    "TensorFlow": tensorflow,
    "OpenCV": opencv,
    "Pillow": pillow,
    "torchvision": torchvision,
    "Daft": daft,
}
REFERENCES = {**DECODERS, "tifffile": tifffile}
"""The decoders, and one of TIFF alone."""


def installed() -> list[str]:
    """Returns the names of the decoders whose packages are installed."""
    packages = {"torchvision": "torchvision", "Daft": "daft"}
    return [name for name in DECODERS if name not in packages or importlib.util.find_spec(packages[name])]


class Process:
    """A process with one decoder; a new one takes the place of one that died or was killed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._connection: Connection | None = None

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, data: bytes) -> Answer:
        """Returns what the decoder does with an image."""
        if self._connection is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(data)
            if not self._connection.poll(TIME_LIMIT_S):
                self._stop()
                return Answer("hung")
            return self._connection.recv()
        except (EOFError, OSError):
            self._stop()
            return Answer("crashed")

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._name), daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(_START_LIMIT_S):
            raise TimeoutError(f"{self._name} did not start")
        self._connection.recv()

    def _stop(self) -> None:
        if self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._connection = None


def _serve(connection: Connection, name: str) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the libraries' own messages
    decode = REFERENCES[name]
    with contextlib.suppress(Exception):
        decode(b"\xff\xd8\xff")  # imports the library
    connection.send(None)
    while True:
        try:
            data = connection.recv()
        except EOFError:
            return
        try:
            answer = decode(data)
        except Exception as error:
            answer = Answer("refused", message=f"{type(error).__name__}: {error}")
        connection.send(answer)
