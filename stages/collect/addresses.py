"""Which addresses a download may connect to: public ones, and those of hosts that params allow by name.

The check is on the address that the connection goes to, not on the name: a name that resolves to a public
address when it is looked at and to a private one when it is used (DNS rebinding) gains nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress

import httpcore2

from stages.collect.answers import Refused
from stages.collect.streams import Stream, connect

Resolve = Callable[[str, int], Awaitable[list[str]]]
Connect = Callable[[str, int], Awaitable[Stream]]

NAT64 = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))  # RFC 6052; RFC 8215, local use


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's: neither private, loopback, link-local, shared nor reserved.

    IPv6 addresses that carry an IPv4 one are judged by it: mapped (RFC 4291), 6to4 (RFC 3056), NAT64 (RFC 6052).
    Raises ValueError if it is no address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if carried := ip.ipv4_mapped or ip.sixtofour:
            return is_public(str(carried))
        if ip in NAT64[0]:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)))
        if ip in NAT64[1] or ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them. Raises OSError or UnicodeError if there are none."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were looked up and checked here; TLS still asks for the name (SNI)."""

    def __init__(self, allow_hosts: Collection[str], resolve: Resolve, connect: Connect = connect) -> None:
        self._allowed = {host.lower() for host in allow_hosts}
        self._resolve = resolve
        self._connect = connect

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the caller keeps the time
        local_address: str | None = None,  # noqa: ARG002 - never given
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002 - never given
    ) -> Stream:
        """The first of the name's addresses that can be reached.

        Raises Refused `dns_failure`, or `private_address` if any of them isn't public; OSError if none answers.
        """
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise Refused("dns_failure", host)
        if host.lower() not in self._allowed and not all(map(is_public, addresses)):
            raise Refused("private_address", host)
        for address in addresses[:-1]:
            try:
                return await self._connect(address, port)
            except OSError:
                continue  # the next one may be reached
        return await self._connect(addresses[-1], port)
