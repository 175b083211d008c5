"""The Dataflow API on 127.0.0.1: it takes jobs, and plays what becomes of them.

Beam reaches the API over REST if `--dataflow_endpoint` names `localhost` or a sandbox. With `localhost`, Beam checks no
options and asks for a local pool of workers; with a sandbox, the job is the one that Google would get. A sandbox has no
port, so the service is reached as the proxy of its name.

    with DataflowService(plays=[states("JOB_STATE_RUNNING", "JOB_STATE_DONE")]) as service:
        pipeline.run(RunConfig.from_flags(..., dataflow_endpoint=ENDPOINT))
        (played,) = service.jobs
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

import pytest
from google.cloud.dataflow import (
    Job,
    JobMessage,
    JobMessageImportance,
    JobMetrics,
    JobState,
    ListJobMessagesResponse,
)

ENDPOINT = "http://dataflow.sandbox"
_JOBS = re.compile(
    r"/v1b3/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/jobs(/(?P<id>[^/]+)(/(?P<part>\w+))?)?"
)
_FIRST_MESSAGE_S = 1_700_000_000


@dataclass(frozen=True)
class Moment:
    """The answer to one question for the state of a job.

    Attributes:
      state: of the job.
      errors: messages of importance ERROR that the job has had since the moment before.
      status: of the answer; any other than 200 is an answer without a job. None: the connection is closed without one.
      reason: the message of an answer without a job.
    """

    state: JobState = JobState.JOB_STATE_RUNNING
    errors: tuple[str, ...] = ()
    status: int | None = 200
    reason: str = ""


Play = Callable[["PlayedJob"], Iterator[Moment]]
"""Yields the answers to the questions for a job's state; the last one is repeated."""


def states(*names: str, errors: Iterable[str] = ()) -> Play:
    """Returns a play of these states, the last with error messages."""

    def play(_: PlayedJob) -> Iterator[Moment]:
        for name in names[:-1]:
            yield Moment(JobState[name])
        yield Moment(JobState[names[-1]], tuple(errors))

    return play


@dataclass
class PlayedJob:
    """A job that was created.

    Attributes:
      job: what the launcher sent, with the id that the service chose.
      region: that the launcher named.
      was_cancelled: set when somebody has asked for the end of the job.
      was_watched: set when the launcher has asked for the job's state.
      messages: all so far.
    """

    job: Job
    region: str
    was_cancelled: threading.Event = field(default_factory=threading.Event)
    was_watched: threading.Event = field(default_factory=threading.Event)
    messages: list[JobMessage] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Adds an error message, a second after the one before."""
        number = len(self.messages)
        importance = JobMessageImportance.JOB_MESSAGE_ERROR
        message = JobMessage(id=f"m{number}", message_text=text, message_importance=importance)
        message.time = {"seconds": _FIRST_MESSAGE_S + number}
        self.messages.append(message)


class DataflowService:
    """A service that this process and those that it starts reach as `ENDPOINT` while the context is entered.

    Attributes:
      jobs: all that were created.
      refusal: an answer to every attempt to create a job; None creates it.
    """

    def __init__(self, plays: Iterable[Play], refusal: tuple[HTTPStatus, str] | None = None) -> None:
        """Prepares a service that plays the n-th of `plays` for the n-th job."""
        self.jobs: list[PlayedJob] = []
        self.refusal = refusal
        self._plays = iter(plays)
        self._moments: dict[str, Iterator[Moment]] = {}
        self._now: dict[str, Moment] = {}
        self._lock = threading.Lock()
        service = self

        class Handler(_Handler):
            def answer(self, method: str, path: str, body: bytes) -> tuple[int | None, bytes]:
                with service._lock:
                    return service._answer(method, path, body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        self._patch.setenv("http_proxy", f"http://127.0.0.1:{self._server.server_port}")
        for name in ("no_proxy", "NO_PROXY"):
            self._patch.setenv(name, "127.0.0.1,localhost")
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int | None, bytes]:
        match = _JOBS.fullmatch(urlsplit(path).path)
        if match is None:
            return _error(HTTPStatus.NOT_FOUND, f"the service has no {path}")
        if (method, match["id"]) == ("POST", None):
            return self._create(match["region"], Job.from_json(body))
        found = next((played for played in self.jobs if played.job.id == match["id"]), None)
        if found is None:
            return _error(HTTPStatus.NOT_FOUND, f"there is no job {match['id']}")
        if (method, match["part"]) == ("PUT", None):
            assert Job.from_json(body).requested_state == JobState.JOB_STATE_CANCELLED
            found.was_cancelled.set()
            return _json(found.job)
        if match["part"] == "messages":
            return _json(ListJobMessagesResponse(job_messages=_since(found.messages, path)))
        if match["part"] == "metrics":
            return _json(JobMetrics())
        return self._get(found)

    def _create(self, region: str, job: Job) -> tuple[int | None, bytes]:
        if self.refusal is not None:
            return _error(*self.refusal)
        job.id = f"2026-01-01_00_00_00-{len(self.jobs)}"
        played = PlayedJob(job, region)
        self.jobs.append(played)
        self._moments[job.id] = next(self._plays)(played)
        return _json(job)

    def _get(self, played: PlayedJob) -> tuple[int | None, bytes]:
        played.was_watched.set()
        number = played.job.id
        moment = next(self._moments[number], None)
        if moment is None:
            moment = self._now[number]
        else:
            for text in moment.errors:
                played.say(text)
        self._now[number] = moment
        if moment.status != HTTPStatus.OK:
            return (None, b"") if moment.status is None else _error(HTTPStatus(moment.status), moment.reason)
        played.job.current_state = moment.state
        return _json(played.job)


class _Handler(BaseHTTPRequestHandler):
    def answer(self, method: str, path: str, body: bytes) -> tuple[int | None, bytes]:
        raise NotImplementedError

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, text = self.answer(self.command, self.path, body)
        if status is None:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def log_message(self, *args: object) -> None:
        pass


def _since(messages: list[JobMessage], path: str) -> list[JobMessage]:
    """Returns the messages from the start time that the launcher names."""
    start = parse_qs(urlsplit(path).query).get("startTime")
    return [message for message in messages if start is None or message.time.rfc3339() >= start[0]]


def _json(message: Job | ListJobMessagesResponse | JobMetrics) -> tuple[int, bytes]:
    return HTTPStatus.OK, type(message).to_json(message).encode()


def _error(status: HTTPStatus, text: str) -> tuple[int, bytes]:
    return status, b'{"error": {"code": %d, "message": "%s"}}' % (status, text.encode())
