"""Who has put rows into a spool: one name per process, from which others can tell whether it has ended."""

from __future__ import annotations

import os
import secrets
import socket
import zlib

from dspy_trace.guard import ask


def new_owner() -> str:
    """Return a name for this process: its id, where ids mean something, and something that no other process has."""
    return f"{os.getpid()}-{_space()}-{secrets.token_hex(4)}"


def has_ended(owner: str) -> bool:
    """Return whether the process of an owner has ended; ``False`` where that cannot be told from here."""
    pid, _, rest = owner.partition("-")
    space, _, token = rest.partition("-")
    if not pid.isdecimal() or os.name != "posix" or (token and space != _space()):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _space() -> str:
    """Return a name for what process ids mean something in: this machine, or this container of it."""
    names = f"{socket.gethostname()} {ask(lambda: os.stat('/proc/self/ns/pid').st_ino)}"
    return f"{zlib.crc32(names.encode()):08x}"
