"""The settings of a run: a file, and one frozen dataclass, for each concern.

Each field of these classes is a flag of the same name; its metadata holds the help text and the function that parses
a value. Each flag is declared once and has one meaning in Python, in a configuration file and on the command line.
"""

from pipeline.core.settings.decode import DecodeConfig, DecodeMode
from pipeline.core.settings.engine import EngineConfig, Normalization, Precision
from pipeline.core.settings.execution import ExecutionConfig
from pipeline.core.settings.flags import parse_bytes, parse_image_size, parse_names
from pipeline.core.settings.input import CorruptPolicy, InputConfig
from pipeline.core.settings.module import ModuleConfig, Pooling
from pipeline.core.settings.output import OUTPUT_FEATURES, TIMESTAMP_COLUMN, Compression, OutputConfig
from pipeline.core.settings.preprocess import PreprocessConfig

__all__ = [
    "OUTPUT_FEATURES",
    "TIMESTAMP_COLUMN",
    "Compression",
    "CorruptPolicy",
    "DecodeConfig",
    "DecodeMode",
    "EngineConfig",
    "ExecutionConfig",
    "InputConfig",
    "ModuleConfig",
    "Normalization",
    "OutputConfig",
    "Pooling",
    "Precision",
    "PreprocessConfig",
    "parse_bytes",
    "parse_image_size",
    "parse_names",
]
