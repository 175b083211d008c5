import dataclasses
import pickle
import platform

import apache_beam as beam
import pytest

from pipeline.beam.worker_errors import WorkerError, carry_causes, cause_of
from pipeline.beam.worker_versions import Versions
from pipeline.core.errors import UsageError

HERE = Versions.here()


class _UnknownToTheWorker:
    def __reduce__(self):
        return _fail, ()


def _fail():
    raise AttributeError("not on this worker")


@carry_causes
class _Fn(beam.DoFn):
    def __init__(self, value):
        self.value = value


def test_the_versions_are_those_of_this_process():
    assert platform.python_version().startswith(f"{HERE.python}.")
    assert beam.__version__ == HERE.beam
    assert Versions.here() == HERE
    HERE.check()


@pytest.mark.parametrize(
    ("versions", "difference"),
    [
        ({"python": "3.1"}, f"Python {HERE.python}, the launcher has 3.1;"),
        ({"beam": "2.1.0"}, f"Apache Beam {HERE.beam}, the launcher has 2.1.0;"),
        (
            {"package": "0" * 12},
            f"the code of this package with the digest {HERE.package}, the launcher has {'0' * 12};",
        ),
        (
            {"python": "3.1", "beam": "2.1.0"},
            f"Python {HERE.python}, the launcher has 3.1; Apache Beam {HERE.beam}, the launcher has 2.1.0;",
        ),
    ],
)
def test_a_worker_with_another_version_unpickles_nothing(monkeypatch, versions, difference):
    with monkeypatch.context() as launcher:
        launcher.setattr(Versions, "here", lambda: dataclasses.replace(HERE, **versions))
        pickled = pickle.dumps(_Fn(_UnknownToTheWorker()))
    with pytest.raises(WorkerError) as raised:
        pickle.loads(pickled)
    cause = cause_of(raised.value)
    assert isinstance(cause, UsageError)
    assert str(cause) == (
        f"a worker has another version than the launcher: {difference} install the launcher's versions where the "
        "workers run, such as in their image"
    )


def test_a_worker_with_the_same_versions_gets_the_dofn():
    assert pickle.loads(pickle.dumps(_Fn("value"))).value == "value"
    assert pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(_Fn("value"))))).value == "value"
    with pytest.raises(AttributeError, match="not on this worker"):
        pickle.loads(pickle.dumps(_Fn(_UnknownToTheWorker())))
