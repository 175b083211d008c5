"""Google Cloud Storage on 127.0.0.1, for tests that read and write `gs://` paths.

Beam reaches it through `STORAGE_EMULATOR_HOST`, which google-cloud-storage follows. Beam also insists on
looking for credentials first, and takes over twenty seconds to find that there are none; so the environment
names credentials that a second little server exchanges for a made-up access token. Both settings are
environment variables: a process that a test starts sees the same emulator.

The emulator ignores generation preconditions and does not tell an object's generation when it is downloaded;
here it does both, as Cloud Storage does (cloud.google.com/storage/docs/request-preconditions).

    @pytest.fixture(scope="module")
    def gcs() -> Iterator[GcsEmulator]:
        with gcs_emulator() as emulator:
            yield emulator

    def test_something(gcs: GcsEmulator) -> None:
        gcs.write("gs://bucket/photo.jpg", b"...")
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gcp_storage_emulator.server
import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import create_server

BUCKET = "bucket"


@dataclass(frozen=True)
class GcsEmulator:
    """A running emulator with one empty bucket, `gs://bucket`.

    Attributes:
      environment: the variables that point a process at it; already set in this one.
    """

    environment: dict[str, str]

    def write(self, path: str, content: bytes) -> None:
        """Writes an object as it stands, whatever its extension."""
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
            stream.write(content)

    def read(self, path: str) -> bytes:
        """Returns the bytes of an object as they stand."""
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
            return bytes(stream.read())

    def paths(self, prefix: str = f"gs://{BUCKET}/") -> list[str]:
        """Returns the paths of all objects under `prefix`, sorted."""
        (match,) = FileSystems.match([prefix + "**"])
        return sorted(metadata.path for metadata in match.metadata_list)

    def delete(self, prefix: str = f"gs://{BUCKET}/") -> None:
        """Deletes all objects under `prefix`."""
        FileSystems.delete(self.paths(prefix))


class _TokenHandler(BaseHTTPRequestHandler):
    """Hands out an access token for anything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(
            {
                "access_token": "made-up",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
                "expires_in": 3600,
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def _with_generations(handler: Callable[..., None]) -> Callable[..., None]:
    """Puts the rules about generations before a handler of the emulator, which serves one request at a time."""

    def handle(request: Any, response: Any, storage: Any) -> None:
        generation = _generation(request, storage)
        wanted = request.query.get("ifGenerationMatch", [str(generation)])[0]
        exact = request.query.get("generation", [str(generation)])[0]
        if request.method in ("GET", "DELETE") and generation and exact != str(generation):
            response.status = HTTPStatus.NOT_FOUND
        elif wanted != str(generation) and not (request.method in ("GET", "DELETE") and not generation):
            response.status = HTTPStatus.PRECONDITION_FAILED
            response.json({"error": {"code": 412, "message": "At least one of the pre-conditions did not hold."}})
        else:
            handler(request, response, storage)
            if request.method == "GET" and generation:
                response["X-Goog-Generation"] = str(generation)

    return handle


def _generation(request: Any, storage: Any) -> int:
    """Returns the generation of the object that a request is about; 0 if there is none."""
    name = request.params.get("object_id") or request.query.get("name", [None])[0]
    if name is None and isinstance(request.data, dict):
        name = request.data.get("meta", request.data).get("name")
    try:
        return int(storage.get_file_obj(request.params["bucket_name"], name)["generation"]) if name else 0
    except NotFound:
        return 0


@contextmanager
def gcs_emulator() -> Iterator[GcsEmulator]:
    """Runs an emulator, and points this process and those it starts at it."""
    tokens = ThreadingHTTPServer(("127.0.0.1", 0), _TokenHandler)
    threading.Thread(target=tokens.serve_forever, args=(0.05,), daemon=True).start()
    storage = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    storage.start()
    storage_port = storage._api._httpd.server_port
    try:
        with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                gcp_storage_emulator.server,
                "HANDLERS",
                tuple(
                    (pattern, {method: _with_generations(handler) for method, handler in handlers.items()})
                    for pattern, handlers in gcp_storage_emulator.server.HANDLERS
                ),
            )
            subject = Path(directory) / "subject"
            subject.write_text("anybody")
            credentials = Path(directory) / "credentials.json"
            credentials.write_text(
                json.dumps(
                    {
                        "type": "external_account",
                        "audience": "emulator",
                        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                        "token_url": f"http://127.0.0.1:{tokens.server_port}/token",
                        "credential_source": {"file": str(subject)},
                    }
                )
            )
            environment = {
                "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{storage_port}",
                "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
                "GOOGLE_CLOUD_PROJECT": "emulator",
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            }
            for name, value in environment.items():
                patch.setenv(name, value)
            yield GcsEmulator(environment)
    finally:
        storage.stop()
        tokens.shutdown()
        tokens.server_close()
