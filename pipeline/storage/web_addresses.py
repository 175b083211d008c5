"""`http(s)://` addresses: their form, and the networks that a stranger's address may lead to."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarl import URL

_WEB = re.compile(r"https?://", re.IGNORECASE)
_AS_IT_STANDS = re.compile(r"[!-~]+")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_web_address(text: str) -> bool:
    """Returns whether a text begins like the address of a web page."""
    return _WEB.match(text) is not None


def parse_address(text: str) -> URL:
    """Returns a parsed `http(s)://` address.

    An address of visible ASCII characters is sent as it stands, because it may be signed. Of any other address, the
    host is encoded as an internationalized domain name, and the rest in UTF-8 and per cent. A user and a password
    before the host become the header of HTTP's basic authentication.

    Raises:
      ValueError: the text is no such address; the message says why.
    """
    from yarl import URL

    try:
        text.encode()  # yarl drops lone surrogates: bytes outside UTF-8
        url = URL(text, encoded=_AS_IT_STANDS.fullmatch(text) is not None)
    except ValueError as error:  # also of characters that no name of a host has
        raise ValueError(" ".join(str(error).split())) from None
    if url.scheme not in ("http", "https") or not url.host or url.port == 0:
        raise ValueError("it lacks a host" if not url.host else "port 0" if url.port == 0 else "it is not http(s)")
    return url


def is_public(address: str) -> bool:
    """Returns whether an IP address is one of the public internet.

    Private, loopback, link-local, multicast and reserved addresses are not (RFC 6890, IANA's registries).
    An IPv4 address inside an IPv6 address (mapped, 6to4, Teredo, NAT64) decides for both.

    Raises:
      ValueError: the text is no IP address.
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)))
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved)
