import copy
from collections import Counter

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.worker import statesampler
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import userstate

from pipeline.beam.direct_runner import CheckedOptions, DirectRunner, quick_graphs


class SamplingPeriodFn(beam.DoFn):
    def process(self, _):
        yield statesampler.get_current_tracker().sampling_period_ms


def test_a_bundle_does_not_end_with_a_long_wait():
    sampler = statesampler.StateSampler
    with beam.Pipeline(runner=DirectRunner()) as pipeline:
        periods = pipeline | beam.Impulse() | beam.ParDo(SamplingPeriodFn())
        assert_that(periods, equal_to([10]))
    assert statesampler.StateSampler is sampler


class TestOptions:
    def test_views_are_made_once_and_see_each_other(self):
        options = CheckedOptions(["--direct_num_workers=3"])
        view = options.view_as(DirectOptions)
        assert options.view_as(DirectOptions) is view
        view.direct_num_workers = 4
        assert options.view_as(DirectOptions).direct_num_workers == 4
        assert view.view_as(DirectOptions).direct_num_workers == 4

    def test_a_copy_has_values_of_its_own(self):
        options = CheckedOptions(["--experiments=a", "--runner=DirectRunner"])
        assert options.view_as(DebugOptions).experiments == ["a"]
        copied = copy.deepcopy(options)
        copied.view_as(DebugOptions).experiments.append("b")
        copied.view_as(StandardOptions).runner = "Other"
        assert copied.view_as(DebugOptions).experiments == ["a", "b"]
        assert copied.view_as(StandardOptions).runner == "Other"
        assert options.view_as(DebugOptions).experiments == ["a"]
        assert options.view_as(StandardOptions).runner == "DirectRunner"

    def test_a_pipeline_leaves_them_as_they_were(self):
        options = CheckedOptions(["--experiments=a"])
        with beam.Pipeline(runner=DirectRunner(), options=options) as pipeline:
            pipeline | beam.Impulse()
        assert options.view_as(DebugOptions).experiments == ["a"]

    def test_all_of_them_by_name_are_those_of_beam(self):
        args = ["--direct_num_workers=3", "--project=p"]
        wanted = PipelineOptions(args).get_all_options(drop_default=True)
        assert CheckedOptions(args).get_all_options(drop_default=True) == wanted
        assert wanted["project"] == "p"


SEEN = userstate.BagStateSpec("seen", VarIntCoder())


class SumFn(beam.DoFn):
    def process(self, pair, seen=beam.DoFn.StateParam(SEEN)):  # noqa: B008 - how Beam declares it
        seen.add(pair[1])
        yield sum(seen.read())


class TestQuickGraphs:
    def test_a_dofn_is_looked_through_once(self, monkeypatch):
        looked_at = Counter()
        find = userstate.get_dofn_specs

        def count(dofn):
            looked_at[dofn] += 1
            return find(dofn)

        monkeypatch.setattr(userstate, "get_dofn_specs", count)
        with quick_graphs(), beam.Pipeline(runner=DirectRunner()) as pipeline:
            pipeline | beam.Impulse() | beam.ParDo(SamplingPeriodFn()) | beam.Map(str)
        assert set(looked_at.values()) == {1}
        assert userstate.get_dofn_specs is count

    def test_state_is_still_found(self):
        with quick_graphs(), beam.Pipeline(runner=DirectRunner()) as pipeline:
            sums = pipeline | beam.Create([("a", 1), ("a", 2), ("b", 5)]) | beam.ParDo(SumFn())
            assert_that(sums, equal_to([1, 3, 5]))

    def test_beam_is_left_as_it_was(self):
        find = userstate.get_dofn_specs
        with pytest.raises(KeyError), quick_graphs():
            raise KeyError
        assert userstate.get_dofn_specs is find
