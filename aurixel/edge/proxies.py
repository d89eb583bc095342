"""Whose request it is when proxies stand in front: only what a trusted proxy says of its own peer is believed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aurixel.errors import ConfigError


class Proxies:
    """The networks (CIDR) whose `X-Forwarded-For` counts; none by default. `ConfigError` for what is no network."""

    def __init__(self, networks: Iterable[str | IPv4Network | IPv6Network] = ()) -> None:
        try:
            self._networks = tuple(ip_network(network) for network in networks)
        except ValueError:
            raise ConfigError(
                "a trusted proxy is not a network",
                place="server.trusted_proxies",
                mend="write a list of addresses or networks such as 10.0.0.0/8",
            ) from None
        self._known = lru_cache(maxsize=1024)(self._look_up)

    def client_ip(self, peer: str, forwarded: str | None) -> str:
        """The rightmost address of `X-Forwarded-For` that is no trusted proxy, where `peer` is one; else `peer`.

        An entry that is no address ends the search: what stands left of it was not written by a proxy we trust.
        """
        if not self._networks or forwarded is None or not self._known(peer)[1]:
            return peer
        client = peer
        for entry in reversed(forwarded.split(",")):
            address, trusted = self._known(entry.strip())
            if address is None:
                break
            client = address
            if not trusted:
                break
        return client

    def _look_up(self, text: str) -> tuple[str | None, bool]:
        address = _parse(text)
        if address is None:
            return None, False
        return str(address), any(address in network for network in self._networks)


def plain(peer: str) -> str:
    """A socket's address without IPv6's mapping of an IPv4 one."""
    address = _parse(peer)
    return peer if address is None else str(address)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    if text.startswith("["):  # [::1]:1234
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:1234
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
