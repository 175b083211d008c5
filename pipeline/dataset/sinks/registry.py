"""The sinks, one line each: the output formats."""

from pipeline.core.registry import Registry

SINKS = Registry(
    "output_format",
    {
        "tfrecord": "pipeline.dataset.sinks.tfrecord:TFRecordSink",
        "parquet": "pipeline.dataset.sinks.parquet:ParquetSink",
    },
)
"""Classes without arguments that implement `pipeline.dataset.sinks.base.Sink`."""
