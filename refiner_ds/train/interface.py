"""Which network interface the ranks of several nodes meet on, where the user has not said so.

gloo would take the address of the host's own name, which on Debian is 127.0.1.1 and leads nowhere from another host.
"""

import socket

import psutil

from refiner_ds.errors import UserError

VARIABLE = "GLOO_SOCKET_IFNAME"
ANYWHERE = "192.0.2.1"
"""An address kept for documentation (RFC 5737): what leads there is the default route. Nothing is sent."""
VIRTUAL = ("docker", "veth", "br-", "virbr", "cni", "flannel", "tun", "tap")


def interface_towards(address: str) -> str:
    """The interface that leads to rank 0's node or, on that node itself, to the others.

    Raises:
        UserError: it is not certain.
    """
    by_address = _interfaces()
    for place in (address, ANYWHERE):
        if name := by_address.get(_own_address_towards(place)):
            return name
    candidates = sorted({name for name in by_address.values() if not name.startswith(VIRTUAL)})
    if len(candidates) != 1:
        found = ", ".join(candidates) or "none"
        raise UserError(
            f"{VARIABLE} is not set, rank 0's address {address} is this host's own loopback, and of its interfaces "
            f"({found}) none is certain to lead to the other hosts; set {VARIABLE} to the one that does, on all hosts."
        )
    return candidates[0]


def _interfaces() -> dict[str, str]:
    """Interface by address, for those that are up and lead out of this host."""
    states = psutil.net_if_stats()
    return {
        address.address.partition("%")[0]: name
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6) and name in states and states[name].isup
        if not address.address.startswith(("127.", "169.254.", "fe80:")) and address.address != "::1"
    }


def _own_address_towards(address: str) -> str:
    """The address that this host would send from; empty where there is no way."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # of UDP: chooses a route and sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return ""
