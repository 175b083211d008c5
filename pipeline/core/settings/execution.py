"""The flags about the execution of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.core.errors import UsageError
from pipeline.core.settings.flags import flag, parse_bytes, parse_reasons


@dataclass(frozen=True)
class ExecutionConfig:
    """The execution of the run: waves, resuming, limits and logging."""

    overwrite: bool = flag(
        "remove the data set and write a new one; removes only files that its spec and manifests name. "
        "Default: continue where the last run stopped",
        default=False,
    )
    max_failure_rate: float = flag(
        "share of failed records above which the exit code is 3. Default: 0.1",
        default=0.1,
        parse=float,
        metavar="RATE",
    )
    wave_bytes: int | None = flag(
        "input bytes per wave, which groups whole files and commits them together; at most a million files. Default: "
        "2GiB on the DirectRunner, 256GiB elsewhere",
        default=None,
        parse=parse_bytes,
        metavar="SIZE",
    )
    retry_failed: bool | tuple[str, ...] = flag(
        "also retry the records that failed in earlier runs: all, or those with some reasons, such as "
        "--retry_failed=http_timeout,http_503",
        default=False,
        parse=parse_reasons,
        metavar="REASONS",
        is_switch=True,
    )
    verbose: bool = flag("log the duration of each start-up step", default=False)
    quiet: bool = flag("print only warnings, errors and the result. Default: show the progress", default=False)
    dry_run: bool = flag(
        "plan, load the module, embed a small sample, and print the plan with its estimated time, memory and cost; "
        "write nothing",
        default=False,
    )
    workers: int | None = flag(
        "--dry_run: number of workers that share the work; a worker is one vCPU (one core). Default: the cores of this "
        "machine",
        default=None,
        parse=int,
        metavar="N",
    )
    price_per_vcpu_hour: float | None = flag(
        "--dry_run: price of one vCPU for one hour, in any currency. Default: none, no cost is printed",
        default=None,
        parse=float,
        metavar="PRICE",
    )
    steal_lock: bool = flag(
        "write even if another run seems to be writing to the same output; that run then commits nothing more",
        default=False,
    )

    def __post_init__(self) -> None:
        """Refuses numbers out of range, unknown reasons, and settings of a dry run without one."""
        if not isinstance(self.retry_failed, bool):
            parse_reasons(",".join(self.retry_failed))
        if self.wave_bytes is not None and self.wave_bytes < 1:
            raise UsageError(f"--wave_bytes={self.wave_bytes} holds no input; it must be at least 1")
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other; leave one out")
        if not 0 <= self.max_failure_rate <= 1:
            raise UsageError(f"--max_failure_rate={self.max_failure_rate} is not a rate; it must be between 0 and 1")
        for name in ("workers", "price_per_vcpu_hour"):
            value = getattr(self, name)
            if value is None:
                continue
            if not 0 < value < math.inf:
                raise UsageError(f"--{name}={value} is out of range; it must be a number above 0")
            if not self.dry_run:
                raise UsageError(f"--{name}={value} has an effect only with --dry_run; add --dry_run or leave it out")
