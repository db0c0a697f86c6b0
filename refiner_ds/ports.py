"""Ports of this host."""

import socket


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])
