import pytest

from pipeline.storage.web_addresses import is_public, is_web_address, parse_address


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_addresses_of_the_public_internet(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",  # shared by the customers of a provider
        "127.0.0.1",
        "127.255.0.1",
        "169.254.169.254",  # the credentials of a machine in a cloud
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "4000::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo of 127.0.0.1
    ],
)
def test_addresses_of_other_networks(address):
    assert not is_public(address)


def test_texts_that_are_no_ip_address_are_refused():
    with pytest.raises(ValueError, match="localhost"):
        is_public("localhost")


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("http://h/a.jpg", "http://h/a.jpg"),
        ("HTTPS://h:8443/a", "https://h:8443/a"),
        ("http://h/%41%2f?sign=a%2Bb+c%20d&e=~", "http://h/%41%2f?sign=a%2Bb+c%20d&e=~"),
        ("http://h/100%.jpg", "http://h/100%.jpg"),
        ("http://h/a b.jpg", "http://h/a%20b.jpg"),
        ("http://h/a\nX: y", "http://h/aX:%20y"),
        ("http://h/é.jpg?ö", "http://h/%C3%A9.jpg?%C3%B6"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://[2001:db8::1]:8080/a", "http://[2001:db8::1]:8080/a"),
        ("http://user:p%40ss@h/", "http://user:p%40ss@h/"),
    ],
)
def test_addresses_are_sent_as_they_stand_if_they_can_be(text, sent):
    assert is_web_address(text)
    assert str(parse_address(text)) == sent


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://", "it lacks a host"),
        ("http:///a.jpg", "it lacks a host"),
        ("http://h:0/", "port 0"),
        ("http://h:65536/", "Port out of range"),
        ("http://h:port/", "port"),
        ("http://[::1/", "IPv6"),
        ("http://h\\@evil/", "backslash"),
        ("ftp://h/a", r"it is not http\(s\)"),
        ("http://h/\udcff", "surrogates"),
    ],
)
def test_addresses_that_cannot_be_fetched(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


@pytest.mark.parametrize("text", ["a.jpg", "http:/a", "gs://a/b", "file:///a", "xhttp://a", " http://a", ""])
def test_paths_are_no_web_addresses(text):
    assert not is_web_address(text)
