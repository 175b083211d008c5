"""Spark's `predict_batch_udf` on encoded images in Parquet: Spark has no resize, so the function decodes and resizes.

Spark runs in this process and in one Python worker for each core. Each worker loads the module once. An image crosses
from the JVM to its worker once, still encoded.
"""

import os
import sys
from functools import partial

import cv2
import numpy as np
import simplejpeg
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, FloatType

from benchmarks.peers.network import load_network
from benchmarks.task import Task

BATCH = 32


def make_predict(task: Task):
    cv2.setNumThreads(1)
    network = load_network(task, threads=1)

    def predict(images: np.ndarray) -> np.ndarray:
        pixels = (simplejpeg.decode_jpeg(image, "RGB").astype(np.float32) for image in images)
        resized = [cv2.resize(image, (task.width, task.height)) for image in pixels]
        return network(np.stack(resized) / np.float32(255))

    return predict


def run(task: Task) -> None:
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = (
        SparkSession.builder.master(f"local[{task.threads}]")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        # The default, 10000, would put a gigabyte of photos into one batch.
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "128")
        .getOrCreate()
    )
    embed = predict_batch_udf(partial(make_predict, task), return_type=ArrayType(FloatType()), batch_size=BATCH)
    images = spark.read.parquet(*task.files)
    images.select(images["id"].alias("key"), embed("image").alias("embedding")).write.mode("append").parquet(
        task.output
    )
    spark.stop()
