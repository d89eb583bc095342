"""Reads the value of a key limit as the operator wrote it; the `ValueError`s it raises are words for the operator."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

NUMBERS: Final = frozenset({"rpm", "tpm", "concurrency"})
MOST: Final = 10**12


def parse_limit(name: str, value: Any) -> frozenset[str] | tuple[Network, ...] | int:
    """`models` a set of names, `ips` networks, the others a positive number. Lists may be given with commas."""
    if name in NUMBERS:
        return _number(name, value)
    if name == "models":
        return frozenset(_list(name, value))
    if name == "ips":
        return tuple(_network(text) for text in _list(name, value))
    raise ValueError(f"there is no limit '{name}'")


def _number(name: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 13:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ValueError(f"{name} must be a whole number from 1 to {MOST}")
    return value


def _list(name: str, value: Any) -> list[str]:
    items: Any = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable) or isinstance(items, bytes):
        raise ValueError(f"{name} must be a list")
    texts = [item.strip() for item in items if isinstance(item, str)]
    if len(texts) != len(list(items)) or not texts or not all(texts):
        raise ValueError(f"{name} must be a list of at least one name, none of them empty")
    return texts


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"'{text}' is no IP address and no network such as 192.0.2.0/24 or 2001:db8::/32") from None
    raise ValueError(f"'{text}' has bits set beyond its prefix: is {meant} meant?")


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """A client's address; an IPv4 address in IPv6 clothes is an IPv4 address. None for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
