"""The destinations, one line each."""

from pipeline.core.registry import Registry

DESTINATIONS = Registry(
    "to",
    {
        "parquet": "pipeline.export.parquet:ParquetDestination",
        "feast": "pipeline.export.feast:FeastDestination",
        "faiss": "pipeline.export.faiss:FaissDestination",
        "vertex": "pipeline.export.vertex:VertexDestination",
    },
)
"""Classes without arguments that implement `pipeline.export.base.Destination`."""
