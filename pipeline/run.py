"""The main job: `python -m pipeline.run --help`, and `pipeline.run(config)` from Python."""

import sys
import types
from typing import Any

from pipeline.commands.run import main
from pipeline.job.run import run


class _CallableModule(types.ModuleType):
    """Lets `pipeline.run(config)` run the job, although importing this module binds the name to it."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return run(*args, **keywords)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    sys.exit(main())
