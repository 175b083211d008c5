"""The sinks, one line each: the output formats."""

from pipeline.core.registry import Registry

SINKS = Registry(
    "output_format",
    {
        "tfrecord": "pipeline.dataset.sinks.tfrecord:TFRecordSink",
        "parquet": "pipeline.dataset.sinks.parquet:ParquetSink",
    },
)
"""Classes without arguments that implement `pipeline.dataset.sinks.base.Sink`.

If a wave has several formats, the first one is preferred, which keeps keys as bytes; for a table the last one, which
keeps the types of columns.
"""
