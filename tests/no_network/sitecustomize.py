"""Python runs this file at its start when its folder is on the path: no connection leaves it.

The tests put it on the path of every process that they start (see conftest.py), so that a
connection tried by whit, by a worker or by a library is an error there and then, and is written
down for the test to fail by, even where somebody swallows the error. The machine itself may be
called: loopback and the sockets of its file system.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any


class ConnectionTried(BaseException):
    """Something tried to reach the network."""


def _stays_here(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        address = ipaddress.ip_address(str(host))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified  # as listening servers name themselves


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if not isinstance(address, tuple) or _stays_here(address[0]):
            return  # a socket of the file system, or of this machine
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if _stays_here(arguments[0]):
            return
    else:
        return
    tried = os.environ.get("WHIT_TEST_TRIED")
    if tried:
        with open(tried, "a", encoding="utf-8") as stream:
            stream.write(f"{event} {arguments} by {' '.join(sys.argv)}\n")
    raise ConnectionTried(f"{event} {arguments}")


sys.addaudithook(_refuse)
