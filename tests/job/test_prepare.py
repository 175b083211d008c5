import pytest

from pipeline.beam.options import parse_beam_args
from pipeline.job import prepare
from pipeline.job.prepare import threads_per_process


@pytest.mark.parametrize(
    ("args", "threads"),
    [
        ([], 8),
        (["--direct_running_mode=multi_threading", "--direct_num_workers=4"], 8),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=4"], 2),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=3"], 2),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=20"], 1),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=0"], 1),
        (["--runner=DataflowRunner"], 1),
        (["--runner=DataflowRunner", "--experiments=no_use_multiple_sdk_containers"], None),
        (["--runner=FlinkRunner"], None),
    ],
)
def test_worker_processes_of_a_machine_share_its_cores(args, threads, monkeypatch):
    monkeypatch.setattr(prepare, "usable_cores", lambda: 8)
    assert threads_per_process(parse_beam_args(args)) == threads
