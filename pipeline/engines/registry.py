"""The inference engines, one line each."""

from pipeline.core.registry import Registry

ENGINES = Registry(
    "engine",
    {
        "openvino": "pipeline.engines.openvino:OpenVINOEngine",
        "tensorflow": "pipeline.engines.tensorflow:TensorFlowEngine",
    },
)
"""Functions from a `pipeline.engines.base.ModuleFunction` to a `pipeline.engines.base.Engine`."""
