"""The summary of a run, and the versions of the packages that it used."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.errors import TooManyFailures
from pipeline.core.versions import installed_versions
from pipeline.dataset.metadata import SUMMARY_NAME, Manifest, live
from pipeline.embedding.dataset_spec import Spec
from pipeline.images.versions import DECODER_PACKAGES
from pipeline.storage import filesystem

VERSIONED_PACKAGES = ("apache-beam", "tensorflow", "openvino", "tfx-bsl", "numpy", *DECODER_PACKAGES)


@dataclass(frozen=True)
class Summary:
    """The counts, settings and versions of a run; `summary.json` has the same fields.

    Attributes:
      records: records that were read, with and without a vector.
      embedded: records that have a vector.
      failed: records that have a failure line.
      skipped: records that an earlier run had done.
      failures_by_reason: number of failures for each reason.
      seconds: duration of the run.
      images_per_second: `embedded / seconds`.
      waves: how many waves were committed.
      module: the module's handle.
      module_sha256: the module's digest.
      dimension: length of a vector.
      engine: name of the engine that computed the vectors.
      precision: of the computation.
      runner: of the pipeline.
      versions: of the packages that affect the result.
      zero_vectors: rows whose vector has only zeros.
      duplicate_vectors: rows whose vector equals, bit for bit, that of an earlier row of the same file.
      damaged_but_embedded: rows whose image is damaged: a part of its pixels may be missing or wrong.
    """

    records: int
    embedded: int
    failed: int
    skipped: int
    failures_by_reason: Mapping[str, int]
    seconds: float
    images_per_second: float
    waves: int
    module: str
    module_sha256: str
    dimension: int
    engine: str
    precision: str
    runner: str
    versions: Mapping[str, str]
    zero_vectors: int = 0
    duplicate_vectors: int = 0
    damaged_but_embedded: int = 0


def summarize(manifests: Sequence[Manifest], spec: Spec, *, skipped: int, seconds: float, runner: str) -> Summary:
    """Returns the summary of a run.

    Args:
      manifests: of the waves that the run committed.
      spec: of the data set.
      skipped: records that earlier runs had done.
      seconds: duration of the run.
      runner: name of Beam's runner.
    """
    embedded = sum(manifest.embedded for manifest in manifests)
    failed = sum(manifest.failed for manifest in manifests)
    reasons: Counter[str] = Counter()
    for manifest in manifests:
        reasons.update(manifest.failures_by_reason)
    return Summary(
        records=embedded + failed,
        embedded=embedded,
        failed=failed,
        skipped=skipped,
        failures_by_reason=dict(sorted(reasons.items())),
        seconds=round(seconds, 3),
        images_per_second=round(embedded / seconds, 3),
        waves=len(manifests),
        module=spec.module,
        module_sha256=spec.module_sha256,
        dimension=spec.dimension,
        engine=spec.engine,
        precision=spec.precision,
        runner=runner,
        versions=package_versions(),
        zero_vectors=sum(manifest.zero_vectors for manifest in manifests),
        duplicate_vectors=sum(manifest.duplicate_vectors for manifest in manifests),
        damaged_but_embedded=sum(manifest.damaged_but_embedded for manifest in manifests),
    )


def read_summary(output: str) -> Summary:
    """Returns the summary of the last run that wrote the data set in a directory.

    Raises:
      OSError: there is none, or it cannot be read.
    """
    values = json.loads(filesystem.read_bytes(filesystem.join(filesystem.absolute(output), SUMMARY_NAME)))
    return Summary(**{field.name: values[field.name] for field in dataclasses.fields(Summary) if field.name in values})


def check_failures(summary: Summary, max_failure_rate: float, earlier: Sequence[Manifest] = ()) -> None:
    """Checks that enough records of a run were embedded.

    Args:
      summary: of the run.
      max_failure_rate: the largest share of failures, from 0 to 1.
      earlier: the manifests of the data set before the run.

    Raises:
      TooManyFailures: all records failed, or a larger share than `max_failure_rate`; or there was nothing new, and all
        records of earlier runs have failed.
    """
    if not summary.records:
        _check_earlier(live(earlier))
    rate = summary.failed / summary.records if summary.records else 0.0
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.failures_by_reason.items())
    if summary.records and not summary.embedded:
        raise TooManyFailures(
            f"none of {summary.records} records could be embedded ({reasons}); see failures/ in the data set"
        )
    if rate > max_failure_rate:
        raise TooManyFailures(
            f"{summary.failed} of {summary.records} records failed ({reasons}), more than "
            f"--max_failure_rate={max_failure_rate:g} allows; the others are kept; see failures/ in the data set"
        )


def _check_earlier(manifests: Sequence[Manifest]) -> None:
    failed: Counter[str] = Counter()
    for manifest in manifests:
        failed.update(manifest.failures_by_reason)
    if failed and not any(manifest.embedded for manifest in manifests):
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
        raise TooManyFailures(
            f"none of {failed.total()} records could be embedded ({reasons}) by earlier runs; see failures/ in the "
            "data set, and try them again with --retry_failed"
        )


@functools.cache
def package_versions() -> Mapping[str, str]:
    """Returns the versions of the installed packages that affect a result, by name."""
    return installed_versions(VERSIONED_PACKAGES)
