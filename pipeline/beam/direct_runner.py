"""The DirectRunner, which is Beam's FnApiRunner, and what makes it cheap to run it again for each wave.

Beam spends some 0.1 s of a core on a pipeline before it does any work, much of it on doing the same thing
again and again. None of what is here changes what a pipeline does.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import weakref
from collections.abc import Iterator
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.worker import statesampler
from apache_beam.transforms import userstate

_Options = TypeVar("_Options", bound=PipelineOptions)

_SAMPLING_PERIOD_MS = 10


class DirectRunner(FnApiRunner):
    """Beam's FnApiRunner, less what its sampling of states costs.

    A bundle ends when the thread that samples its state wakes up, and that may be 200 ms later: for every wave, as
    much as it takes to embed a hundred images.
    """

    def run_stages(self, *args: Any) -> Any:
        """Runs a pipeline's stages with states sampled more often."""
        sampler = functools.partial(statesampler.StateSampler, sampling_period_ms=_SAMPLING_PERIOD_MS)
        with _replaced(statesampler, "StateSampler", sampler):
            return super().run_stages(*args)


class CheckedOptions(PipelineOptions):
    """Options that are known to be Beam's, and whose views are made once.

    Beam asks for a view at every transform, and parses all arguments anew each time.
    """

    def view_as(self, cls: type[_Options]) -> _Options:
        """Returns the options as an object of one of Beam's classes of options."""
        views: dict[type[PipelineOptions], Any] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        view: _Options = views[cls]
        return view

    def get_all_options(self, *args: Any, display_warnings: bool = False, **settings: Any) -> dict[str, Any]:
        """Returns all options by name, but none where Beam asks only to warn of those that it does not know."""
        return {} if display_warnings else super().get_all_options(*args, **settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> CheckedOptions:
        """Copies the values, which each pipeline may change for itself, but not what was parsed."""
        values = copy.deepcopy(self._all_options, memo)
        views = {cls: _with_values(view, values) for cls, view in self.__dict__.get("_views", {}).items()}
        copied = _with_values(self, values)
        copied.__dict__["_views"] = views
        return copied


@contextlib.contextmanager
def quick_graphs() -> Iterator[None]:
    """While entered, Beam goes through a DoFn in search of state and timers once, not at every occasion."""
    find = userstate.get_dofn_specs
    found: weakref.WeakKeyDictionary[beam.DoFn, Any] = weakref.WeakKeyDictionary()

    def find_once(dofn: beam.DoFn) -> Any:
        specs = found.get(dofn)
        if specs is None:
            specs = found[dofn] = find(dofn)
        return specs

    with _replaced(userstate, "get_dofn_specs", find_once):
        yield


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _with_values(options: _Options, values: dict[str, Any]) -> _Options:
    copied = object.__new__(type(options))
    copied.__dict__.update(options.__dict__, _all_options=values)
    return copied
