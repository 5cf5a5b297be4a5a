"""Where a provider may be: no address at which a machine finds its own credentials, and nothing sent in the clear over the internet."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["address_problem"]

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
# What the C library and browsers read as an IPv4 address: its last part is a number in some notation.
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_LOCAL_SUFFIXES = (".local", ".localhost")

_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_METADATA_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fe80::/10",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
    )
)
_PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
# IPv6 addresses that stand for an IPv4 one in their last 32 bits (RFC 4291, RFC 6052).
_EMBEDDING_NETWORKS = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))


def address_problem(scheme: str, host: str) -> str | None:
    """What keeps a provider from being asked there, None where nothing does; `host` is without port and brackets.

    Judged by its spelling alone: no name is looked up. The text does not repeat the host.
    """
    host = host.lower().removesuffix(".")
    if not host.isascii():
        return "its host holds letters beyond ASCII: write it in its ASCII form (xn--...)"
    if ":" in host:
        return _problem_of_ip(scheme, _stands_for(IPv6Address(host.partition("%")[0])))
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return _problem_of_ip(scheme, IPv4Address(host))
        except ValueError:
            return "its host is a number in an unusual notation: write the address as four decimal numbers"
    if not _NAME.fullmatch(host):
        return "its host is no name that can be looked up"
    if host in _METADATA_NAMES:
        return "there a machine finds its own credentials, not a model"
    if scheme == "http" and "." in host and not host.endswith(_LOCAL_SUFFIXES):
        return "the key and the questions would travel unencrypted to a public host"
    return None


def _stands_for(address: IPv6Address) -> IPv4Address | IPv6Address:
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is not None:
        return embedded
    if int(address) > 1 and any(address in network for network in _EMBEDDING_NETWORKS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _problem_of_ip(scheme: str, address: IPv4Address | IPv6Address) -> str | None:
    if _lies_in(address, _METADATA_NETWORKS):
        return "it is a link-local or metadata address, at which a machine finds its own credentials, not a model"
    if address.is_unspecified or address.is_multicast or (address.is_reserved and not address.is_loopback):
        return "nobody can be asked at such an address"
    if scheme == "http" and not _lies_in(address, _PRIVATE_NETWORKS):
        return "the key and the questions would travel unencrypted to a public host"
    return None


def _lies_in(address: IPv4Address | IPv6Address, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
