"""
What of an answer is still on this side of a connection, and how it is kept from going out.

What was written lies in the transport's buffer and then in the kernel's, and would go out long
after a stream was cut. The kernel keeps little that is unsent, and a cut throws it away.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct

#: What the kernel takes of a stream beyond what the peer has room for.
UNSENT_BYTES_MAX = 64 * 1024
#: Asks Linux for the bytes of a TCP connection that were not sent yet (linux/sockios.h).
_SIOCOUTQNSD = 0x894B
_RESET = struct.pack("ii", 1, 0)


def keep_unsent_small(transport: asyncio.BaseTransport) -> None:
    """Have the kernel take no more than `UNSENT_BYTES_MAX` that it cannot send yet."""
    if (connected := _tcp(transport)) is not None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)


def unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """Return how many bytes wait here that the peer has not been sent."""
    waiting = transport.get_write_buffer_size()
    connected = _tcp(transport)
    if connected is None or connected.fileno() < 0:
        return waiting
    answer = fcntl.ioctl(connected.fileno(), _SIOCOUTQNSD, struct.pack("i", 0))
    return waiting + int(struct.unpack("i", answer)[0])


def reset(transport: asyncio.WriteTransport) -> None:
    """Cut a connection and throw away what waits here; the peer is told so by a reset (RST)."""
    connected = _tcp(transport)
    if connected is not None and connected.fileno() >= 0:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _tcp(transport: asyncio.BaseTransport) -> socket.socket | None:
    connected: socket.socket | None = transport.get_extra_info("socket")
    inet = connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6)
    return connected if inet else None
