"""Ports that others connect to."""

import socket


def listening_socket(host: str, port: int) -> socket.socket:
    """TCP socket that listens, at any free port for 0; ValueError where it cannot."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise unavailable(host, port, error.strerror) from None


def unavailable(host: str, port: int, why: str | None) -> ValueError:
    """Error for a port that cannot be opened."""
    return ValueError(
        f"port {port} of {host} cannot be opened ({why}); another program uses it: choose another "
        "with --port, or 0 for any"
    )
