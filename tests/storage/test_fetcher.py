"""Many addresses at a time."""

import asyncio
import gc
import threading

import pytest

from pipeline.storage import fetcher as fetcher_module
from pipeline.storage.fetch_budget import FetchBudget, Room
from pipeline.storage.fetcher import Fetcher, shared_fetcher
from pipeline.storage.web_client import RESERVED_BYTES, FetchSettings, WebClient
from tests.datasets import until
from tests.web_server import hang, reply

SETTINGS = FetchSettings(8, 30.0, 1 << 20, allow_private=True)


@pytest.fixture
def fetcher():
    made = Fetcher(SETTINGS)
    yield made
    made.close()


class Gates:
    """Answers that wait until they are opened."""

    def __init__(self, web, count, size=1):
        self.events = [threading.Event() for _ in range(count)]
        self.addresses = [web.serve(f"/{index}", self._answer(index, size)) for index in range(count)]

    def _answer(self, index, size):
        async def answer(reader, writer):
            while not self.events[index].is_set():
                await asyncio.sleep(0.001)
            await reply(b"%d" % index * size)(reader, writer)

        return answer


def test_results_come_in_order_whatever_order_the_answers_come_in(web, fetcher):
    gates = Gates(web, 8)
    found = []
    thread = threading.Thread(target=lambda: found.extend(fetcher.fetch(gates.addresses)))
    thread.start()
    for event in gates.events[::-1]:
        event.set()
    thread.join()
    assert found == [b"%d" % index for index in range(8)]


def test_no_more_at_a_time_than_allowed_and_as_many(web, fetcher):
    gates = Gates(web, 24)
    found = []
    thread = threading.Thread(target=lambda: found.extend(fetcher.fetch(gates.addresses)))
    thread.start()
    until(lambda: web.most == 8)
    for event in gates.events:
        event.set()
    thread.join()
    assert (len(found), web.most) == (24, 8)


def test_all_threads_share_the_slots_and_the_connections(web, fetcher):
    addresses = [web.serve(f"/{index}", reply(b"x")) for index in range(50)]
    found = []
    threads = [threading.Thread(target=lambda: found.extend(fetcher.fetch(addresses))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"x"] * 200
    assert web.most <= 8


def test_addresses_are_taken_ahead_but_not_all_at_once(web, fetcher):
    web.serve("/", reply(b"x"))
    taken = []

    def addresses():
        for index in range(10_000):
            taken.append(index)
            yield web.url()

    stream = fetcher.fetch(addresses())
    assert next(stream) == b"x"
    assert 1 < len(taken) <= 32
    stream.close()


def test_a_stream_that_is_given_up_ends_its_fetches(web, fetcher):
    addresses = [web.serve("/first", reply(b"x"))] + [web.serve(f"/{index}", hang) for index in range(20)]
    stream = fetcher.fetch(addresses)
    assert next(stream) == b"x"
    del stream
    gc.collect()
    # Its slots and its bytes are free again.
    web.serve("/after", reply(b"after"))
    assert list(fetcher.fetch([web.url("/after")] * 20)) == [b"after"] * 20
    until(lambda: fetcher._budget._free_bytes == fetcher_module.LEAST_BUDGET_BYTES)


def test_bytes_are_bounded_and_the_consumer_never_waits_for_bytes_that_only_it_can_free(web, monkeypatch):
    monkeypatch.setattr(fetcher_module, "LEAST_BUDGET_BYTES", 0)
    monkeypatch.setattr(fetcher_module, "RESERVED_BYTES", 1 << 16)
    fetcher = Fetcher(FetchSettings(4, 30.0, 2 << 20, allow_private=True))
    limit = fetcher._budget._free_bytes
    assert limit < 4 * RESERVED_BYTES
    body = bytes(1 << 20)  # each one alone is larger than the limit
    addresses = [web.serve(f"/{index}", reply(body)) for index in range(12)]
    for found in fetcher.fetch(addresses):
        assert found == body
    until(lambda: fetcher._budget._free_bytes == limit)
    fetcher.close()


def test_an_error_of_the_client_reaches_the_consumer(fetcher, monkeypatch):
    async def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(WebClient, "get", fail)
    with pytest.raises(RuntimeError, match="broken"):
        list(fetcher.fetch(["http://h/"]))


def test_a_process_has_one_fetcher_for_the_same_settings():
    first = shared_fetcher(SETTINGS)
    assert shared_fetcher(SETTINGS) is first
    other = shared_fetcher(FetchSettings(1, 30.0, 1, allow_private=False))
    assert other is not first


class TestBudget:
    @pytest.fixture
    def loop(self):
        loop = asyncio.new_event_loop()
        yield loop
        loop.close()

    def test_who_comes_first_is_served_first(self, loop):
        async def run():
            budget = FetchBudget(10, asyncio.get_running_loop())
            first, second, third = Room(budget), Room(budget), Room(budget)
            assert first.grow(8) is None
            waiting = second.grow(5)
            later = third.grow(1)  # would fit, but came later
            await asyncio.sleep(0)
            assert not waiting.done()
            assert not later.done()
            first.close()
            await waiting
            await later

        loop.run_until_complete(run())

    def test_who_is_waited_for_passes(self, loop):
        async def run():
            budget = FetchBudget(10, asyncio.get_running_loop())
            first, second, third = Room(budget), Room(budget), Room(budget)
            assert first.grow(10) is None
            waiting, urgent = second.grow(5), third.grow(5)
            third.hurry()
            await urgent
            assert third.grow(500) is None
            assert not waiting.done()
            third.close()
            first.close()
            await waiting

        loop.run_until_complete(run())

    def test_what_comes_after_the_end_is_given_back(self, loop):
        async def run():
            budget = FetchBudget(10, asyncio.get_running_loop())
            first, second = Room(budget), Room(budget)
            first.grow(10)
            waiting = second.grow(4)
            second.close()
            first.close()
            await waiting
            third = Room(budget)
            assert third.grow(10) is None

        loop.run_until_complete(run())
