"""The exceptions of this package and their exit codes.

```
PipelineError                 1  base class
├── UsageError                2  a flag, a configuration file or a call that cannot be honoured
│   ├── InputError            2  no input, or the input cannot be read as asked
│   ├── ModuleError           2  the module cannot be found, trusted or used
│   └── OutputError           2  the output directory cannot be used
├── TooManyFailures           3  the run ended, but too little of it succeeded
├── IntegrityError            1  the counts of a run do not add up
└── ImageError                -  one image cannot be decoded; becomes a failure record
```

Every message is one line: what arrived, what was expected, what to do.
"""


class PipelineError(Exception):
    """Base class of the exceptions that this package raises on purpose."""

    exit_code = 1


class UsageError(PipelineError):
    """A flag, a configuration file or a call that cannot be honoured."""

    exit_code = 2


class InputError(UsageError):
    """There is no input, or the input cannot be read as asked."""


class ModuleError(UsageError):
    """The module cannot be found, trusted or used."""


class OutputError(UsageError):
    """The output directory cannot be used."""


class TooManyFailures(PipelineError):
    """The run ended, but more records failed than `--max_failure_rate` allows."""

    exit_code = 3


class IntegrityError(PipelineError):
    """The counts of a run do not add up: a record was lost or counted twice."""


class ImageError(PipelineError):
    """One image cannot be decoded.

    Attributes:
      reason: one of `pipeline.core.failures.FailureReason`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.reason, str(self))
