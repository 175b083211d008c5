"""Causes of failed bundles: how an exception of a DoFn reaches the launcher.

Runners report the text of a worker's exception, often inside a traceback or a Java exception, and rarely the exception
itself. So the text contains the cause: a readable message, then a marker with the exception's classes and arguments as
base64-encoded JSON. The alphabet of the marker survives escaping and quoting.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import inspect
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline.beam.worker_versions import Versions
from pipeline.core.console import describe_os_error
from pipeline.core.errors import PipelineError

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Class = TypeVar("_Class", bound=type)

_MARKER = re.compile(r"pipeline-cause\.([A-Za-z0-9_-]+)\.")
_DOFN_METHODS = ("setup", "start_bundle", "process", "finish_bundle", "teardown")


class WorkerError(PipelineError):
    """An exception of a DoFn; its text contains its encoded cause, which `cause_of` decodes."""

    @classmethod
    def carrying(cls, error: PipelineError | OSError) -> WorkerError:
        """Returns a `WorkerError` whose text contains `error`."""
        message = describe_os_error(error) if isinstance(error, OSError) else str(error)
        arguments = error.__reduce__()[1] if isinstance(error, PipelineError) else ()
        payload = {
            "classes": [kind.__name__ for kind in type(error).__mro__],
            "arguments": arguments if all(isinstance(item, str) for item in arguments) else (message,),
            "message": message,
            "host": socket.gethostname(),
        }
        if isinstance(error, OSError):
            payload |= {"errno": error.errno, "filename": None if error.filename is None else str(error.filename)}
        encoded = base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")
        return cls(f"{message} [pipeline-cause.{encoded}.]")


def carry_cause(function: _Function) -> _Function:
    """Decorates a function or generator of a worker: its `PipelineError` or `OSError` becomes a `WorkerError`."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*args: Any, **keywords: Any) -> Iterator[Any]:
            with _carrying():
                yield from function(*args, **keywords)

        return generate  # type: ignore[return-value]

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        with _carrying():
            return function(*args, **keywords)

    return call  # type: ignore[return-value]


def carry_causes(dofn: _Class) -> _Class:
    """Decorates a DoFn class: applies `carry_cause` to the methods that Beam calls, and checks the worker's versions.

    The check is the first step of unpickling an instance, before the objects in it, which other versions may lack.
    """
    for name in _DOFN_METHODS:
        if name in vars(dofn):
            setattr(dofn, name, carry_cause(getattr(dofn, name)))
    dofn.__getstate__ = _versioned_state  # type: ignore[method-assign, assignment]
    return dofn


def _versioned_state(dofn: Any) -> dict[str, Any]:
    return {"_launcher": _Launcher(), **vars(dofn)}


class _Launcher:
    """Compares the launcher's versions with those of the worker that unpickles it."""

    def __reduce__(self) -> tuple[Any, tuple[Versions]]:
        return _check_versions, (Versions.here(),)


@carry_cause
def _check_versions(launcher: Versions) -> _Launcher:
    launcher.check()
    return _Launcher()


def cause_of(error: BaseException) -> PipelineError | None:
    """Returns the exception of a worker, decoded from the error that a runner raises; None if there is no marker.

    A class that this process does not know becomes the nearest known base class. An `OSError` becomes a
    `PipelineError` with an `OSError` of the same number as its `__cause__`. The message of another host ends with the
    name of that host.
    """
    for link in reversed(_chain(error)):
        match = _MARKER.search(str(link))
        if match and (cause := _rebuild(match[1])):
            return cause
    return None


@contextlib.contextmanager
def _carrying() -> Iterator[None]:
    try:
        yield
    except WorkerError:
        raise
    except (PipelineError, OSError) as error:
        raise WorkerError.carrying(error) from error


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an exception and its causes and contexts, innermost last."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop(0)
        if link not in found:
            found.append(link)
            waiting += [before for before in (link.__cause__, link.__context__) if before is not None]
    return found


def _rebuild(encoded: str) -> PipelineError | None:
    try:
        payload = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        classes, arguments, message = payload["classes"], payload["arguments"], payload["message"]
        host = payload["host"]
    except (ValueError, LookupError, TypeError):  # truncated or changed by the runner
        return None
    if host != socket.gethostname():
        message = f"{message} (worker {host})"
        arguments = [*arguments[:-1], f"{arguments[-1]} (worker {host})"] if arguments else []
    known = _known_classes(PipelineError)
    kind = next((known[name] for name in classes if name in known), None)
    if kind is None:
        cause = PipelineError(message)
        number = payload.get("errno")
        cause.__cause__ = OSError(message) if number is None else OSError(number, message, payload.get("filename"))
        return cause
    try:
        return kind(*arguments)
    except TypeError:  # arguments of a subclass that this process does not know
        return PipelineError(message)


def _known_classes(kind: type[PipelineError]) -> dict[str, type[PipelineError]]:
    """Returns a class and its subclasses by name."""
    found = {kind.__name__: kind}
    for subclass in kind.__subclasses__():
        found |= _known_classes(subclass)
    return found
