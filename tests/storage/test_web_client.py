"""One address each, of a server that behaves well or badly."""

import datetime
import email.utils
import gzip
import socket

import pytest

from pipeline.storage import web_client
from pipeline.storage.fetcher import Fetcher
from pipeline.storage.web_client import ATTEMPTS, FetchFailure, FetchSettings, WebClient, backoff, retry_after
from tests.web_server import WebServer, drip, flood, hang, raw, redirect, reply, reset

HEAD = b"HTTP/1.1 200 OK\r\n"
NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def server():
    with WebServer().running() as running:
        yield running


class Fetching:
    """Fetches single addresses; the client's waits take no time.

    Attributes:
      waits: the seconds of its waits.
    """

    def __init__(self, **settings):
        self.waits = []
        chosen = FetchSettings(
            **{"concurrency": 4, "timeout_s": 30.0, "max_bytes": 1000, "allow_private": True, **settings}
        )
        self.fetcher = Fetcher(chosen, lambda settings: WebClient(settings, sleep=self._sleep, now=lambda: NOW))

    async def _sleep(self, seconds):
        self.waits.append(seconds)

    def __call__(self, address):
        (found,) = self.fetcher.fetch([address])
        return found


@pytest.fixture
def fetching():
    made = []

    def make(**settings):
        made.append(Fetching(**settings))
        return made[-1]

    yield make
    for item in made:
        item.fetcher.close()


class TestAnswers:
    def test_a_body(self, server, fetching):
        assert fetching()(server.serve("/a", reply(b"image"))) == b"image"
        head = server.heads[-1]
        assert "User-Agent: embedding-pipeline\r\n" in head
        assert "Accept-Encoding: identity\r\n" in head
        assert "Cookie" not in head

    def test_an_empty_body(self, server, fetching):
        assert fetching()(server.serve("/empty", reply(b""))) == b""

    def test_a_chunked_body(self, server, fetching):
        answer = raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert fetching()(server.serve("/chunked", answer)) == b"abcde"

    def test_a_page_is_what_it_is_whatever_its_type(self, server, fetching):
        page = reply(b"<html>", headers={"Content-Type": "image/jpeg"})
        assert fetching()(server.serve("/page", page)) == b"<html>"

    def test_gzip_as_an_encoding_is_unpacked(self, server, fetching):
        packed = reply(gzip.compress(b"image"), headers={"Content-Encoding": "gzip"})
        assert fetching()(server.serve("/gzip", packed)) == b"image"

    def test_an_encoding_that_is_another_one(self, server, fetching):
        found = fetching()(server.serve("/odd", reply(b"image", headers={"Content-Encoding": "gzip"})))
        assert found.message.startswith("the answer has another Content-Encoding than it says (attempt 4); ")

    def test_a_path_and_a_query_as_they_stand(self, server, fetching):
        assert fetching()(server.serve("/%41?a=%2B+&b=1,2", reply(b"x")) + "#part") == b"x"

    def test_a_user_and_a_password(self, server, fetching):
        address = server.serve("/user", reply(b"x")).replace("http://", "http://me:secret@")
        assert fetching()(address) == b"x"
        assert "Authorization: Basic bWU6c2VjcmV0" in server.heads[-1]

    def test_an_ipv6_address(self, fetching):
        with WebServer("::1").running() as server:
            assert fetching()(server.serve("/a", reply(b"six"))) == b"six"

    @pytest.mark.parametrize(
        ("status", "reason"),
        [(403, "http_403"), (404, "http_404"), (410, "http_410"), (418, "http_status"), (304, "http_status")],
    )
    def test_a_status_is_not_tried_again(self, server, fetching, status, reason):
        address = server.serve(f"/{status}", reply(status=status))
        found = fetching()(address)
        assert found == FetchFailure(reason, f"the server answered {status} Status; check the address")
        assert server.requests[f"/{status}"] == 1


class TestRetries:
    @pytest.mark.parametrize("status", [500, 503])
    def test_a_failing_server_is_asked_again(self, server, fetching, status):
        client, failing = fetching(), reply(status=status)
        assert client(server.serve(f"/again/{status}", failing, failing, reply(b"image"))) == b"image"
        assert [0.25 <= client.waits[0] <= 0.5, 0.5 <= client.waits[1] <= 1.0] == [True, True]

    @pytest.mark.parametrize("first", [reset, raw(HEAD, then=reset)])
    def test_a_connection_that_broke_is_made_again(self, server, fetching, first):
        assert fetching()(server.serve(f"/again/{id(first)}", first, first, reply(b"image"))) == b"image"

    def test_until_the_attempts_are_over(self, server, fetching):
        client = fetching()
        found = client(server.serve("/502", reply(status=502)))
        text = f"the server answered 502 Status (attempt {ATTEMPTS}); try again later with --retry_failed"
        assert found == FetchFailure("http_502", text)
        assert (server.requests["/502"], len(client.waits)) == (ATTEMPTS, ATTEMPTS - 1)

    @pytest.mark.parametrize("is_date", [False, True])
    def test_a_server_says_how_long_to_wait(self, server, fetching, is_date):
        then = datetime.datetime.fromtimestamp(NOW + 7, datetime.UTC)
        header = email.utils.format_datetime(then, usegmt=True) if is_date else "7"
        client = fetching()
        path = f"/429/{is_date}"
        assert client(server.serve(path, reply(status=429, headers={"Retry-After": header}), reply(b"x"))) == b"x"
        assert client.waits == [7.0]

    def test_a_wait_beyond_the_timeout_is_none(self, server, fetching):
        client = fetching()
        found = client(server.serve("/long", reply(status=429, headers={"Retry-After": "3600"})))
        assert found.reason == "http_429"
        assert found.message.startswith("the server answered 429 Status, which asked to wait 3600 s (attempt 1); try")
        assert client.waits == []

    def test_a_connection_that_is_refused(self, fetching):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            client = fetching()
            found = client(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        assert (found.reason, len(client.waits)) == ("http_connection", ATTEMPTS - 1)
        assert found.message.startswith("no connection: Connect call failed")

    def test_a_connection_that_is_reset_halfway(self, server, fetching):
        found = fetching()(server.serve("/reset", raw(HEAD + b"Content-Length: 9\r\n\r\nabc", then=reset)))
        assert found.reason == "http_connection"
        assert found.message.startswith("the connection broke off (attempt 4); try again later")

    def test_an_answer_that_is_no_http(self, server, fetching):
        found = fetching()(server.serve("/ssh", raw(b"SSH-2.0-OpenSSH\r\n\r\n", then=reset)))
        assert found.message.startswith("the answer is no HTTP: Bad status line (attempt 4); ")

    def test_a_name_that_no_host_has_is_not_tried_again(self, fetching, monkeypatch):
        def fail(*_, **__):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        client = fetching()
        found = client("http://nowhere.example/")
        assert found == FetchFailure("http_connection", "no connection: Name or service not known")
        assert client.waits == []

    @pytest.mark.parametrize("attempt", [1, 2, 3])
    def test_the_wait_doubles_and_varies(self, attempt):
        assert backoff(attempt, 0.0) == 0.25 * 2 ** (attempt - 1)
        assert backoff(attempt, 1.0) == 0.5 * 2 ** (attempt - 1)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            (None, 0),
            ("", 0),
            (" 12 ", 12),
            ("soon", 0),
            ("-5", 0),
            ("9" * 400, 999_999_999),
            ("Tue, 14 Nov 2023 22:13:50 GMT", 30),
            ("Tue, 14 Nov 2000 22:13:50 GMT", 0),
            ("Tue, 14 Nov 99999 22:13:50 GMT", 0),
        ],
    )
    def test_headers_that_say_when(self, header, seconds):
        assert retry_after(header, NOW) == seconds


class TestLimits:
    @pytest.mark.parametrize(
        "answer",
        [hang, raw(b"HTTP/1.1 200", then=hang), raw(HEAD + b"Content-Length: 9\r\n\r\nab", then=hang),
         raw(HEAD + b"Content-Length: 900\r\n\r\n", then=drip), raw(HEAD + b"X: ", then=drip)],
        ids=["nothing", "half a head", "half a body", "a slow body", "a slow head"],
    )  # fmt: skip
    def test_no_end_within_the_time(self, server, fetching, answer):
        found = fetching(timeout_s=0.1)(server.serve(f"/slow/{id(answer)}", answer))
        text = "no complete answer within the 0.1 s of --fetch_timeout; try again later with --retry_failed"
        assert found == FetchFailure("http_timeout", text)

    @pytest.mark.parametrize(
        "answer",
        [
            reply(bytes(1001)),
            raw(HEAD + b"\r\n", then=flood),
            raw(HEAD + b"Content-Length: 99999999999\r\n\r\n", then=hang),
            reply(gzip.compress(bytes(1 << 24)), headers={"Content-Encoding": "gzip"}),
        ],
        ids=["one byte too many", "endless", "by its header", "after unpacking"],
    )
    def test_too_many_bytes(self, server, fetching, answer):
        found = fetching()(server.serve(f"/large/{id(answer)}", answer))
        text = "the server sends more than the 1000 bytes that --max_image_bytes allows"
        assert found == FetchFailure("too_large", text)

    def test_as_many_as_allowed(self, server, fetching):
        assert fetching()(server.serve("/limit", reply(bytes(1000)))) == bytes(1000)

    def test_more_bytes_than_the_header_says(self, server, fetching):
        found = fetching()(server.serve("/longer", raw(HEAD + b"Content-Length: 3\r\n\r\nabcdef")))
        assert found.reason == "http_connection"

    @pytest.mark.parametrize(
        ("address", "text"),
        [
            ("http:///a", "no web address: it lacks a host; expected http://HOST/PATH or https://"),
            (f"http://{'a' * 70}.example/", "no web address: "),
            ("http://127.1/", "no web address: 127.1 - is not a canonical IPv4 address; check the address"),
        ],
    )
    def test_addresses_that_are_none(self, fetching, address, text):
        found = fetching()(address)
        assert found.reason == "http_invalid"
        assert found.message.startswith(text)


class TestRedirects:
    def test_to_another_address(self, server, fetching):
        server.serve("/target", reply(b"image"))
        assert fetching()(server.serve("/from", redirect("/target"))) == b"image"

    def test_for_ever(self, server, fetching):
        found = fetching()(server.serve("/loop", redirect("/loop")))
        assert found == FetchFailure("http_redirects", "more than 10 redirects; check the address")

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h/a", "data:image/png;base64,AAAA"])
    def test_to_something_else(self, server, fetching, target):
        found = fetching()(server.serve("/other", redirect(target)))
        assert found.reason == "http_redirects"
        assert found.message == f"redirected to {target}, which is not fetched; check the address"

    def test_without_a_target(self, server, fetching):
        assert fetching()(server.serve("/nowhere", reply(status=302))).reason == "http_status"


class TestPrivateAddresses:
    TEXT = "has no address of the public internet; if it is yours, add --allow_private_addresses"

    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0.0.0.0"])
    def test_are_refused(self, server, fetching, host):
        before = len(server.heads)
        client = fetching(allow_private=False)
        found = client(f"http://{host}:{server.port}/a")
        assert (found.reason, client.waits, len(server.heads)) == ("http_private_address", [], before)
        assert found.message.endswith(self.TEXT)

    def test_by_the_answer_of_the_name_server_which_is_the_one_that_counts(self, server, fetching, monkeypatch):
        """A name server that answers otherwise the second time changes nothing: there is no second question."""
        answers = iter([["93.184.216.34"], ["127.0.0.1", "10.0.0.1"]])
        asked = []

        def look_up(host, port, *_, **__):
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        next(answers)
        found = fetching(allow_private=False)(f"http://rebinding.example:{server.port}/a")
        assert (found.reason, asked) == ("http_private_address", ["rebinding.example"])

    def test_of_several_answers_the_public_ones_are_tried(self, server, fetching, monkeypatch):
        def look_up(host, port, *_, **__):
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("10.0.0.1", "127.0.0.1")
            ]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(web_client, "is_public", lambda address: address == "127.0.0.1")
        server.serve("/a", reply(b"image"))
        assert fetching(allow_private=False)(f"http://mixed.example:{server.port}/a") == b"image"

    def test_each_hop_of_a_redirect_is_checked(self, fetching, monkeypatch, server):
        monkeypatch.setattr(web_client, "is_public", lambda address: address == "127.0.0.1")
        with WebServer("::1").running() as inner:
            target = inner.serve("/secret", reply(b"secret"))
            client = fetching(allow_private=False)
            found = client(server.serve("/inwards", redirect(target)))
            assert (found.reason, inner.heads) == ("http_private_address", [])
