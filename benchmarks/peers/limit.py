"""The hand-written limit, without a framework: threads that parse, decode, infer and write records from memory.

Options: `decode` (`exact` or `fast`), `precision` (`f32` or `bf16`) and `inference_batch`, images of one inference.
"""

import itertools
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg

from benchmarks.task import Task
from pipeline.engines.base import ModuleFunction
from pipeline.engines.conversion import converted
from pipeline.model_formats.openvino_package import import_openvino
from pipeline.savedmodel.signatures import ImageSignature
from pipeline.tfrecords.encoder import make_encoder
from pipeline.tfrecords.examples import parse_example
from pipeline.tfrecords.framing import frame
from pipeline.tfrecords.tfrecord import Record, read_records_sequential

GROUP = 16


def run(task: Task) -> float:
    started = time.monotonic()
    options = {"decode": "exact", "precision": "f32", "inference_batch": 1, **task.options}
    records = []
    for path in task.files:
        with open(path, "rb") as file:
            records += [item.data for item in read_records_sequential(file) if isinstance(item, Record)]
    cv2.setNumThreads(1)
    signature = ImageSignature(task.signature, task.input_key, task.output_key, task.height, task.width, None)
    module = converted(ModuleFunction(task.module, task.module, task.sha256, signature))
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(module.model)
    batch = options["inference_batch"]
    model.reshape([batch, task.height, task.width, 3])
    settings = {
        "INFERENCE_PRECISION_HINT": options["precision"],
        "NUM_STREAMS": task.threads,
        "INFERENCE_NUM_THREADS": task.threads,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(model, "CPU", settings)
    smallest = {"min_height": task.height, "min_width": task.width} if options["decode"] == "fast" else {}
    groups = iter([records[i : i + GROUP] for i in range(0, len(records), GROUP)])
    lock = threading.Lock()
    excluded = time.monotonic() - started

    def work(number: int) -> None:
        request = compiled.create_infer_request()
        images = np.zeros((batch, task.height, task.width, 3), np.float32)
        request.set_input_tensor(openvino.Tensor(images, shared_memory=True))
        encoder = make_encoder()
        with open(Path(task.output, f"vectors-{number}.tfrecord"), "wb") as file:
            while True:
                with lock:
                    group = next(groups, None)
                if group is None:
                    return
                keys, vectors = [], []
                for data in group:
                    record = parse_example(data, address="", source="", image_feature="image/encoded", key_feature="id")
                    pixels = simplejpeg.decode_jpeg(record.image, "RGB", **smallest)
                    resized = cv2.resize(pixels.astype(np.float32), (task.width, task.height))
                    np.multiply(resized, np.float32(1 / 255), out=images[len(keys) % batch])
                    keys.append(record.key)
                    if len(keys) % batch == 0 or len(keys) == len(group):
                        request.infer()
                        vectors.append(request.get_output_tensor().data[: (len(keys) - 1) % batch + 1].copy())
                file.write(b"".join(map(frame, encoder.encode(to_rows(keys, np.concatenate(vectors))))))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(task.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return excluded


def to_rows(keys: list[bytes], vectors: np.ndarray) -> pa.RecordBatch:
    offsets = itertools.accumulate(itertools.repeat(vectors.shape[1], len(keys)), initial=0)
    return pa.RecordBatch.from_pydict(
        {
            "key": pa.array([[key] for key in keys], pa.list_(pa.binary())),
            "embedding": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(vectors.reshape(-1))),
        }
    )
