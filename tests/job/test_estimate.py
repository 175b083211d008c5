import pytest

from pipeline.job.estimate import Estimate, GroupSample, TaskSample, estimate


def group(*tasks, total, is_counted=False, embedded=0, cpu_seconds=0.0):
    return GroupSample(tasks, total, is_counted=is_counted, embedded=embedded, cpu_seconds=cpu_seconds)


def test_image_files_are_counted():
    found = estimate([group(TaskSample(30, 30, 64, False), total=1000, is_counted=True, embedded=27, cpu_seconds=0.3)])
    assert (found.records, found.is_exact, found.embedded) == (1000, True, 900)
    assert found.core_seconds == pytest.approx(10)


def test_records_scale_with_the_stored_bytes_of_each_file():
    small, large = TaskSample(10, 10 * 100, 50_000, False), TaskSample(10, 10 * 10_000, 50_000, False)
    found = estimate([group(small, large, total=200_000, embedded=20, cpu_seconds=2.0)])
    assert (found.records, found.is_exact) == (2 * (500 + 5), False)
    assert found.core_seconds == pytest.approx(101)


def test_files_that_are_read_to_their_end_are_exact():
    tasks = TaskSample(3, 500, 500, True), TaskSample(0, 40, 40, True)
    assert estimate([group(*tasks, total=540)]) == Estimate(3, is_exact=True, embedded=0, core_seconds=0.0)
    assert not estimate([group(*tasks, total=541)]).is_exact


def test_the_time_of_each_group_scales_with_its_own_number_of_records():
    slow = group(TaskSample(10, 10, 10, True), total=10, is_counted=True, embedded=10, cpu_seconds=10.0)
    fast = group(TaskSample(10, 100, 1000, False), total=100_000, embedded=5, cpu_seconds=0.1)
    found = estimate([slow, fast])
    assert (found.records, found.is_exact, found.embedded) == (10_010, False, 5_010)
    assert found.core_seconds == pytest.approx(10 + 100)


def test_files_without_a_size_count_as_read():
    found = estimate([group(TaskSample(2, 0, 0, True), total=0, embedded=2)])
    assert (found.records, found.is_exact) == (2, True)


def test_hours_and_speed():
    found = Estimate(records=3_600_000, is_exact=True, embedded=3_600_000, core_seconds=18_000)
    assert found.images_per_second == 200
    assert found.vcpu_hours == 5
    assert found.seconds(workers=8) == 2250
    assert found.vcpu_hours_per_million == pytest.approx(5 / 3.6)


def test_nothing_to_do():
    found = estimate([])
    assert found == Estimate(0, is_exact=True, embedded=0, core_seconds=0.0)
    assert (found.images_per_second, found.vcpu_hours_per_million, found.seconds(2)) == (0, 0, 0)
