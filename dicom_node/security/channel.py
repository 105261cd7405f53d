"""A TLS connection that tells truthfully whether something can be read from it.

`select` sees bytes of TLS where there are none for the application, such as session tickets, and sees none where
OpenSSL has read ahead. Who then reads waits in vain, or waits though there is something. Knows nothing of DICOM.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any


class TlsChannel(ssl.SSLSocket):
    """One TLS connection, used by one thread at a time; only `shutdown` may come from another."""

    _ahead = b""

    def readable(self) -> bool:
        """Return, without waiting, whether `recv` would return at once: with bytes, the end, or an error."""
        if self.pending():
            return True
        timeout = self.gettimeout()
        self.settimeout(0)
        try:
            self._ahead = super().recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True  # the read that follows meets it again
        finally:
            with contextlib.suppress(OSError):  # closed meanwhile
                self.settimeout(timeout)
        return True

    def pending(self) -> int:
        """Return how many bytes can be read without asking the network."""
        return len(self._ahead) + super().pending()

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read up to `buflen` bytes; none at the end of the connection."""
        if self._ahead and buflen > 0:
            ahead, self._ahead = self._ahead, b""
            return ahead
        return super().recv(buflen, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Read into a buffer and return how many bytes; 0 at the end of the connection."""
        if self._ahead:
            memoryview(buffer)[:1] = self._ahead
            self._ahead = b""
            return 1
        return super().recv_into(buffer, nbytes, flags)

    def shutdown(self, how: int) -> None:
        """Shut the connection down below TLS. Nothing can leave in the clear afterwards."""
        socket.socket.shutdown(self, how)

    def say_end(self) -> None:
        """Tell the peer that no more comes (close_notify), without waiting for its answer."""
        with contextlib.suppress(OSError, ValueError):
            self.settimeout(0)
            self.unwrap()
