"""Whole runs on `gs://` paths, and the lock that keeps them apart there."""

import contextlib
import dataclasses
import gzip
import itertools
import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from google.cloud.storage import Blob

from pipeline.commands.verify import main
from pipeline.core.errors import OutputError
from pipeline.dataset import commit, metadata
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.reader import read_failures
from pipeline.dataset.verify import show_failure, verify
from pipeline.report.report import ReportSettings, write_report
from pipeline.storage.lock import DatasetLock
from pipeline.storage.lock_file import LockToken, open_lock
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord, png_bytes
from tests.datasets import contents, embed, read_rows, read_vectors, until
from tests.locks import contend


@pytest.fixture
def base(gcs, tmp_path):
    return f"gs://bucket/{tmp_path.name}"


def put_photos(gcs, base, count, *, first=0):
    for index in range(first, first + count):
        gcs.write(f"{base}/photos/{index:03d}.jpg", jpeg_bytes(seed=index))


def write_holder(gcs, base, **changes):
    token = dataclasses.replace(LockToken("other", "elsewhere", 7, "1", time.time() + 1000), **changes)
    gcs.write(f"{base}/lock.json", json.dumps(dataclasses.asdict(token)).encode())
    return token


class TestRuns:
    def test_the_same_as_on_local_disk(self, gcs, base, tmp_path, tiny_module):
        put_photos(gcs, base, 3)
        gcs.write(f"{base}/photos/bad.jpg", b"bad")
        records = make_tfrecord(make_example({"image/encoded": png_bytes(seed=index)}) for index in range(9))
        gcs.write(f"{base}/photos/a.tfrecord", records + b"damage")
        gcs.write(f"{base}/photos/b.tfrecord.gz", gzip.compress(records))
        local = tmp_path / "photos"
        local.mkdir()
        for path in gcs.paths(f"{base}/photos/"):
            (local / path.rpartition("/")[2]).write_bytes(gcs.read(path))
        flags = {"output_format": "tfrecord,parquet", "compression": "gzip", "wave_bytes": "1"}
        summary = embed(f"{base}/photos", f"{base}/out", tiny_module, **flags)
        assert (summary.embedded, summary.failed, summary.waves) == (21, 2, 6)
        embed(local, tmp_path / "out", tiny_module, **flags)
        assert read_vectors(f"{base}/out") == read_vectors(tmp_path / "out")
        names = [path.removeprefix(f"{base}/out/") for path in gcs.paths(f"{base}/out/")]
        assert names == sorted(contents(tmp_path / "out"))
        report = verify(f"{base}/out")
        assert (report.rows, report.failures, report.problems, report.strays) == (21, 2, (), ())

    def test_going_on_retrying_and_compacting(self, gcs, base, tmp_path, tiny_module):
        put_photos(gcs, base, 3)
        gcs.write(f"{base}/photos/bad.jpg", b"bad")
        out = f"{base}/out"
        assert embed(f"{base}/photos", out, tiny_module).records == 4
        before = {path: gcs.read(path) for path in gcs.paths(f"{out}/")}
        assert embed(f"{base}/photos", out, tiny_module).skipped == 4
        after = {path: gcs.read(path) for path in gcs.paths(f"{out}/")}
        assert {path for path in after if after[path] != before.get(path)} == {f"{out}/summary.json"}
        put_photos(gcs, base, 1, first=3)
        assert embed(f"{base}/photos", out, tiny_module, retry_failed=True).records == 2
        assert [failure.key for failure in read_failures(out)] == [b"bad.jpg"]
        show_failure(out, "bad.jpg", str(tmp_path / "shown"))
        assert (tmp_path / "shown").read_bytes() == b"bad"
        vectors = read_vectors(out)
        assert compact(out).waves == 3
        assert read_vectors(out) == vectors
        report = verify(out)
        assert (report.waves, report.problems, report.strays) == (1, (), ())

    def test_a_report(self, gcs, base, tiny_module):
        put_photos(gcs, base, 3)
        embed(f"{base}/photos", f"{base}/out", tiny_module)
        written = write_report(f"{base}/out", ReportSettings())
        assert (written.path, written.thumbnails) == (f"{base}/out/report.html", 3)
        assert gcs.read(written.path).startswith(b"<!DOCTYPE html>")
        assert verify(f"{base}/out").strays == ()

    def test_strays_are_deleted(self, gcs, base, tiny_module, capsys):
        put_photos(gcs, base, 1)
        embed(f"{base}/photos", f"{base}/out", tiny_module)
        before = gcs.paths(f"{base}/out/")
        gcs.write(f"{base}/out/embeddings/stray", b"x")
        gcs.write(f"{base}/out/staging/00007/embeddings-0a", b"x")
        assert main([f"{base}/out", "--delete_strays"]) == 0
        assert "removed 2 files" in capsys.readouterr().out
        assert gcs.paths(f"{base}/out/") == before

    def test_damage_is_found(self, gcs, base, tiny_module):
        put_photos(gcs, base, 1)
        embed(f"{base}/photos", f"{base}/out", tiny_module)
        (path,) = gcs.paths(f"{base}/out/embeddings/")
        gcs.write(path, b"x" + gcs.read(path)[1:])
        assert any("CRC-32C" in problem for problem in verify(f"{base}/out").problems)
        gcs.delete(f"{base}/out/embeddings/")
        assert verify(f"{base}/out").problems != ()

    def test_overwriting(self, gcs, base, tiny_module):
        put_photos(gcs, base, 2)
        gcs.write(f"{base}/out/notes.txt", b"mine")
        embed(f"{base}/photos", f"{base}/out", tiny_module, wave_bytes="1")
        assert embed(f"{base}/photos", f"{base}/out", tiny_module, overwrite=True).waves == 1
        assert len(read_rows(f"{base}/out")) == 2
        assert f"{base}/out/notes.txt" in gcs.paths(f"{base}/out/")
        marker, new = read_manifests(f"{base}/out")
        assert (marker.replaces, new.wave) == (("00000", "00001"), "00003")
        assert (verify(f"{base}/out").problems, verify(f"{base}/out").strays) == ((), ())


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(gcs, base, tiny_module):
    put_photos(gcs, base, 12)
    arguments = [sys.executable, "-m", "pipeline.run", f"--input={base}/photos", f"--output={base}/out"]
    arguments += [f"--module={tiny_module}", "--engine=openvino", "--wave_bytes=1"]
    for kill in itertools.count():
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            if kill == 2:
                _, error = process.communicate()
                assert process.returncode == 0, error
                break
            wanted = 3 * (kill + 1)
            until(lambda: len(gcs.paths(f"{base}/out/manifests/")) >= wanted or process.poll() is not None)  # noqa: B023
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert verify(f"{base}/out").problems == ()
    manifests = read_manifests(f"{base}/out")
    assert sum(manifest.embedded for manifest in manifests) == len(read_rows(f"{base}/out")) == 12
    report = verify(f"{base}/out")
    assert (report.superseded, report.problems, report.strays) == (0, (), ())


class TestLock:
    def test_is_there_while_it_is_held_and_gone_afterwards(self, gcs, base):
        with DatasetLock(base) as held:
            assert json.loads(gcs.read(f"{base}/lock.json"))["token"] == held.token
            with pytest.raises(OutputError, match=r"is being written by process .* take over with --steal_lock"):
                DatasetLock(base).__enter__()
        assert gcs.paths(f"{base}/") == []

    def test_holds_until_its_lease_runs_out(self, gcs, base):
        write_holder(gcs, base)
        with pytest.raises(OutputError, match=r"is being written by process \d+ on elsewhere"):
            DatasetLock(base).__enter__()
        write_holder(gcs, base, expires_s=time.time() - 1)
        with DatasetLock(base) as held:
            assert json.loads(gcs.read(f"{base}/lock.json"))["token"] == held.token

    def test_can_be_stolen_and_the_robbed_does_not_give_it_back(self, gcs, base):
        with DatasetLock(base) as robbed:
            other = write_holder(gcs, base)
            with pytest.raises(OutputError, match=r"was taken over by process .* on elsewhere while this run went on"):
                robbed.check()
        assert json.loads(gcs.read(f"{base}/lock.json")) == dataclasses.asdict(other)
        with DatasetLock(base, steal=True) as thief:
            thief.check()

    def test_of_two_that_read_the_same_one_wins(self, gcs, base):
        """The condition on the generation refuses whoever comes second, be there a stale lock before or none."""
        for stale in (False, True):
            if stale:
                write_holder(gcs, base, expires_s=time.time() - 1)
            first, second = open_lock(base), open_lock(base)
            token = LockToken("first", "elsewhere", 7, "1", time.time() + 1000)
            with first.changing() as one, second.changing() as other:
                one.write(token)
                with pytest.raises(
                    OutputError, match=r"another run changed lock\.json .* at the same moment; try again"
                ):
                    other.write(dataclasses.replace(token, token="second"))
                with pytest.raises(OutputError, match="at the same moment"):
                    other.remove()
            assert json.loads(gcs.read(f"{base}/lock.json"))["token"] == token.token
            with open_lock(base).changing() as change:
                change.remove()

    def test_is_renewed(self, gcs, base):
        def expires():
            return open_lock(base).read().expires_s

        with DatasetLock(base, lease_s=0.3):
            first = expires()
            until(lambda: expires() > first + 0.3)

    def test_a_robbed_holder_notices(self, gcs, base, caplog):
        with DatasetLock(base, lease_s=0.3):
            write_holder(gcs, base)
            until(lambda: "was taken over; this run will not commit" in caplog.text)
        assert json.loads(gcs.read(f"{base}/lock.json"))["token"] == "other"

    @pytest.mark.parametrize("stale", [False, True])
    def test_of_many_at_once_one_wins(self, gcs, base, monkeypatch, stale):
        """Each has read the lock before the first of them writes it."""
        if stale:
            write_holder(gcs, base, expires_s=time.time() - 1)
        upload, everybody = Blob.upload_from_string, threading.Barrier(4, timeout=5)

        def upload_together(*args, **kwargs):
            with contextlib.suppress(threading.BrokenBarrierError):
                everybody.wait()
            upload(*args, **kwargs)

        monkeypatch.setattr(Blob, "upload_from_string", upload_together)
        assert contend(base, contenders=4) == 1

    def test_a_run_that_is_robbed_while_it_names_its_files_does_not_commit(self, gcs, base, tiny_module, monkeypatch):
        put_photos(gcs, base, 2)
        publish = commit._publish

        def rob(*args):
            manifest = publish(*args)
            write_holder(gcs, f"{base}/out")
            return manifest

        monkeypatch.setattr(commit, "_publish", rob)
        with pytest.raises(OutputError, match=r"was taken over by process .* on elsewhere"):
            embed(f"{base}/photos", f"{base}/out", tiny_module)
        assert read_manifests(f"{base}/out") == ()
        monkeypatch.undo()
        assert embed(f"{base}/photos", f"{base}/out", tiny_module, steal_lock=True).records == 2
        assert verify(f"{base}/out").strays == ()

    def test_a_store_that_answers_with_an_error_is_one_line(self, gcs):
        with pytest.raises(OSError, match=r"lock\.json: .*") as raised:
            DatasetLock("gs://no-such-bucket/out").__enter__()
        assert "\n" not in str(raised.value)


def test_a_whole_bucket_may_be_the_output(gcs, tiny_module):
    gcs.delete()
    gcs.write("gs://bucket/in/x.jpg", jpeg_bytes())
    assert embed("gs://bucket/in", "gs://bucket", tiny_module).records == 1
    assert verify("gs://bucket").problems == ()
    assert metadata.read_spec("gs://bucket") is not None
    gcs.delete()
