"""The input kinds, one line each."""

from pipeline.core.registry import Registry

INPUT_KINDS = Registry(
    "input_format",
    {
        "images": "pipeline.inputs.image_files:ImageFiles",
        "tfrecord": "pipeline.inputs.tfrecord_files:TFRecordFiles",
        "webdataset": "pipeline.inputs.webdataset_files:WebDatasetFiles",
        "parquet": "pipeline.inputs.parquet_files:ParquetFiles",
        "csv": "pipeline.inputs.csv_files:CsvFiles",
        "list": "pipeline.inputs.list_files:ListFiles",
    },
)
"""Classes without arguments that implement `pipeline.inputs.base.InputKind`."""
