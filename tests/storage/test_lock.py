import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.core.errors import OutputError
from pipeline.storage import filesystem, lock_file
from pipeline.storage.lock import DatasetLock
from pipeline.storage.lock_file import LockToken
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.object_store import Move
from tests.datasets import until
from tests.locks import contend

HOLDER = """
import sys, time
from pipeline.storage.lock import DatasetLock
with DatasetLock(sys.argv[1], lease_s=float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder_of(output: Path) -> LockToken:
    return LockToken(**json.loads((output / "lock.json").read_text()))


def write_holder(output: Path, **changes: object) -> LockToken:
    """Writes the lock of another process here that is alive: the one that started the tests."""
    pid = os.getppid()
    started, namespace = lock_file.process_started(pid), lock_file.pid_namespace()
    token = LockToken("other", socket.gethostname(), pid, started, time.time() + 1000, namespace)
    token = dataclasses.replace(token, **changes)
    # As a run does it: a holder that renews the lock at this moment would overwrite a file written beside it.
    with lock_file.open_lock(str(output)).changing() as change:
        change.write(token)
    return token


@pytest.fixture
def start_holder():
    processes = []

    def start(output, lease_s=1000.0):
        command = [sys.executable, "-c", HOLDER, str(output), str(lease_s)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_is_there_while_it_is_held_and_gone_afterwards(tmp_path):
    output = tmp_path / "new/out"
    with DatasetLock(str(output)) as held:
        assert holder_of(output).token == held.token
        assert holder_of(output).pid == os.getpid()
        assert holder_of(output).expires_s > time.time()
    assert not output.exists()  # nothing was written, so nothing is left


def test_a_directory_that_was_there_stays(tmp_path):
    with DatasetLock(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_live_process_keeps_others_out(tmp_path, start_holder):
    holder = start_holder(tmp_path)
    expected = (
        rf"{tmp_path} is being written by process {holder.pid} on .*; wait for it to end, or for its lease of "
        r"\d+ s to run out if it is gone, or take over with --steal_lock"
    )
    with pytest.raises(OutputError, match=expected):
        DatasetLock(str(tmp_path)).__enter__()
    holder.communicate("")
    with DatasetLock(str(tmp_path)):
        pass


def test_a_process_that_was_killed_holds_nothing(tmp_path, start_holder):
    holder = start_holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "lock.json").exists()
    with DatasetLock(str(tmp_path)) as held:
        assert holder_of(tmp_path).token == held.token


def test_a_later_process_of_the_same_number_is_another(tmp_path):
    write_holder(tmp_path, process_started="1")
    with DatasetLock(str(tmp_path)):
        pass


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"pid_namespace": "another container"}])
def test_a_holder_elsewhere_is_waited_for_until_its_lease_runs_out(tmp_path, elsewhere):
    write_holder(tmp_path, process_started="1", **elsewhere)
    with pytest.raises(OutputError, match="is being written by"):
        DatasetLock(str(tmp_path)).__enter__()
    write_holder(tmp_path, expires_s=time.time() - 1, **elsewhere)
    with DatasetLock(str(tmp_path)):
        pass


def test_it_can_be_stolen_and_the_robbed_does_not_give_it_back(tmp_path):
    write_holder(tmp_path)
    robbed = LockedDirectory(str(tmp_path), "other")
    robbed.check()
    with DatasetLock(str(tmp_path), steal=True) as thief:
        assert holder_of(tmp_path).token == thief.token
        thief.check()
        by = rf"by process {os.getpid()} on {re.escape(socket.gethostname())}"
        with pytest.raises(OutputError, match=f"^{tmp_path} was taken over {by} .*nothing more is committed$"):
            robbed.check()
        with DatasetLock(str(tmp_path), steal=True):
            pass
        with pytest.raises(OutputError, match=r"was taken over and released .*nothing more is committed$"):
            thief.check()
        other = write_holder(tmp_path)
    assert holder_of(tmp_path) == other


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"token": "x"}', "[" * 100_000])
def test_a_damaged_lock_is_nobodys(tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    with DatasetLock(str(tmp_path)):
        pass


@pytest.mark.parametrize("changes", [{"expires_s": "soon"}, {"pid": None}, {"surplus": 1}])
def test_a_lock_with_wrong_values_is_nobodys(tmp_path, changes):
    token = dataclasses.asdict(write_holder(tmp_path))
    (tmp_path / "lock.json").write_text(json.dumps({**token, **changes}))
    with DatasetLock(str(tmp_path)):
        pass


def test_it_is_renewed_for_as_long_as_it_is_held(tmp_path):
    with DatasetLock(str(tmp_path), lease_s=0.05) as held:
        first = holder_of(tmp_path)
        until(lambda: holder_of(tmp_path).expires_s > first.expires_s + 0.1)
        assert holder_of(tmp_path).token == held.token


def test_a_holder_that_was_robbed_stops_renewing_and_says_so(tmp_path, caplog):
    with DatasetLock(str(tmp_path), lease_s=0.05):
        other = write_holder(tmp_path)
        until(lambda: "was taken over; this run will not commit" in caplog.text)
        assert holder_of(tmp_path) == other


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OutputError("changed at the same moment")])
def test_a_renewal_that_fails_is_tried_again(tmp_path, monkeypatch, caplog, error):
    write = filesystem.write_atomically
    failing = threading.Event()

    def sometimes(path, data):
        if failing.is_set():
            failing.clear()
            raise error
        write(path, data)

    monkeypatch.setattr(filesystem, "write_atomically", sometimes)
    with DatasetLock(str(tmp_path), lease_s=0.05):
        failing.set()
        until(lambda: "could not be renewed" in caplog.text)
        after = holder_of(tmp_path).expires_s
        until(lambda: holder_of(tmp_path).expires_s > after)


def test_a_lock_that_cannot_be_removed_is_told_of(tmp_path, monkeypatch, caplog):
    with DatasetLock(str(tmp_path)):
        monkeypatch.setattr(
            lock_file._LocalLock, "remove", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error"))
        )
    assert "could not be removed" in caplog.text
    assert "its lease expires by itself" in caplog.text


def test_what_a_killed_process_left_of_the_file_is_removed(tmp_path):
    (tmp_path / f"lock.json.{'0a' * 16}.tmp").write_text("{")
    with DatasetLock(str(tmp_path)):
        assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


def write_slowly(monkeypatch):
    """Leaves time between the decision to take a lock and its file, for others to decide the same."""
    write = filesystem.write_atomically

    def slow(path, data):
        time.sleep(0.05)
        write(path, data)

    monkeypatch.setattr(filesystem, "write_atomically", slow)


def test_of_many_that_try_at_once_one_wins(tmp_path, monkeypatch):
    write_slowly(monkeypatch)
    assert contend(str(tmp_path / "out"), contenders=8) == 1


def test_of_many_that_find_a_stale_lock_one_wins(tmp_path, monkeypatch):
    write_holder(tmp_path, expires_s=time.time() - 1)
    write_slowly(monkeypatch)
    assert contend(str(tmp_path), contenders=8) == 1


def test_one_holds_it_at_a_time_while_many_come_and_go(tmp_path):
    """In a directory that some of them make, and remove while others wait for the lock."""
    output = str(tmp_path / "out")
    start, inside = threading.Barrier(8, timeout=60), threading.Lock()

    def compete(_):
        wins = 0
        start.wait()
        for _ in range(20):
            with contextlib.suppress(OutputError), DatasetLock(output):
                assert inside.acquire(blocking=False), "two hold the lock"
                time.sleep(0.001)
                inside.release()
                wins += 1
        return wins

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(compete, range(8))) >= 1


def test_a_change_of_the_lock_waits_for_another_but_not_for_ever(tmp_path, monkeypatch):
    entered = threading.Event()

    def steal():
        with DatasetLock(str(tmp_path), steal=True):
            entered.set()

    with DatasetLock(str(tmp_path)) as held:
        thread = threading.Thread(target=steal)
        with lock_file.open_lock(str(tmp_path)).changing():
            thread.start()
            assert not entered.wait(0.3)
            assert holder_of(tmp_path).token == held.token
        thread.join()
        assert entered.is_set()
        monkeypatch.setattr(lock_file, "_PATIENCE_S", 0.05)
        expected = rf"another process has been changing {tmp_path}/lock.json for 0 s; it is probably stopped: continue"
        with lock_file.open_lock(str(tmp_path)).changing(), pytest.raises(OutputError, match=expected):
            DatasetLock(str(tmp_path), steal=True).__enter__()


def test_a_lease_that_has_expired_is_kept_until_another_takes_the_lock(tmp_path):
    with DatasetLock(str(tmp_path)) as held:
        expired = dataclasses.replace(holder_of(tmp_path), expires_s=time.time() - 1)
        (tmp_path / "lock.json").write_text(json.dumps(dataclasses.asdict(expired)))
        held.check()
        with DatasetLock(str(tmp_path)) as other:
            other.check()
            with pytest.raises(OutputError, match="was taken over"):
                held.check()


def test_what_was_staged_is_removed_at_the_end(tmp_path, monkeypatch, caplog):
    with DatasetLock(str(tmp_path)) as held:
        held.stage("file", b"data")
        assert (tmp_path / "staging" / held.token / "file").exists()
    assert list(tmp_path.iterdir()) == []
    with DatasetLock(str(tmp_path)):
        monkeypatch.setattr(
            filesystem, "delete_directory", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error"))
        )
    assert "could not be removed ([Errno 5] Input/output error); the next run removes it" in caplog.text
    assert not (tmp_path / "lock.json").exists()


def test_a_lock_that_is_handed_over_stays_until_it_is_released(tmp_path):
    """Its lease does not depend on the process that took it, and the staged files stay."""
    lock = DatasetLock(str(tmp_path))
    with lock as held:
        staged = held.stage("file", b"data")
        lock.hand_over("the job of wave 00000")
    text = r"is being written by the job of wave 00000; wait for it to end, or for its lease of 86\d{3} s to run out"
    with pytest.raises(OutputError, match=text):
        DatasetLock(str(tmp_path)).__enter__()
    held.publish([Move(staged, str(tmp_path / "file"))])
    held.release()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with DatasetLock(str(tmp_path)):
        pass


def test_a_lock_that_was_lost_is_not_handed_over(tmp_path):
    lock = DatasetLock(str(tmp_path))
    with lock, DatasetLock(str(tmp_path), steal=True) as other:
        with pytest.raises(OutputError, match="was taken over"):
            lock.hand_over("the job of wave 00000")
        other.check()


def test_a_process_that_shows_nothing_of_itself_may_be_alive(tmp_path, monkeypatch):
    write_holder(tmp_path, process_started="running")
    monkeypatch.setattr(lock_file, "process_started", lambda pid: "running")
    with pytest.raises(OutputError, match="is being written by"), DatasetLock(str(tmp_path)):
        pass
    write_holder(tmp_path, process_started="12345")  # which only its own user can see
    with pytest.raises(OutputError, match="is being written by"), DatasetLock(str(tmp_path)):
        pass
    monkeypatch.setattr(lock_file, "process_started", lambda pid: "")
    with DatasetLock(str(tmp_path)):
        pass


def test_another_users_process_is_alive(monkeypatch):
    def refuse(pid, number):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(lock_file.Path, "read_text", lambda path: (_ for _ in ()).throw(FileNotFoundError()))
    assert lock_file.process_started(os.getpid()) == "running"
    monkeypatch.setattr(os, "kill", refuse)
    assert lock_file.process_started(1) == "running"


def test_a_store_that_cannot_be_locked_is_written_with_a_warning(caplog):
    with DatasetLock("hdfs://host/out") as held:
        held.check()
    assert "hdfs://host/out cannot be locked; make sure that one run at a time writes to it" in caplog.text
