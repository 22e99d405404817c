"""Shelf: the token stores that this process has open, one a URL, for as long as anybody uses them."""

from __future__ import annotations

from keyturn.client import loop, native
from keyturn.client.errand import Errand
from keyturn.client.token_stores import TokenStore, new_store
from keyturn.errors import CredentialsClosed

_LONGEST_CLOSING = 3.0  # seconds
_inherited: list[TokenStore] = []  # kept alive in a child, so that nothing of the parent's is finalized there


class Shelf:
    """The stores that are open, and how many use each."""

    def __init__(self) -> None:
        self._stores: dict[str, TokenStore] = {}
        self._users: dict[str, int] = {}
        self._lock = native.lock()
        loop.on_fork(self)
        loop.on_exit(self.close)

    def take(self, url: str) -> None:
        """Have `url` kept open until it is put back. Raises as `new_store`; no I/O."""
        with self._lock:
            if url not in self._stores:
                self._stores[url] = new_store(url)
            self._users[url] = self._users.get(url, 0) + 1

    def __getitem__(self, url: str) -> TokenStore:
        """Return the store that was taken. Raises CredentialsClosed where it was put back."""
        try:
            return self._stores[url]
        except KeyError:
            raise CredentialsClosed("these credentials are closed") from None

    def put_back(self, url: str) -> TokenStore | None:
        """Undo one `take`; return the store where it was the last, to be closed on keyturn's loop."""
        with self._lock:
            self._users[url] -= 1
            if self._users[url] > 0:
                return None
            del self._users[url]
            return self._stores.pop(url)

    def close(self) -> None:
        """Close what is open: the process ends."""
        if self._stores:
            closing = Errand(self._aclose, longest=_LONGEST_CLOSING)
            closing.take_off()
            closing.settle()

    async def _aclose(self) -> None:
        for store in list(self._stores.values()):
            await store.aclose()

    def reset_after_fork(self) -> None:
        """Start anew in a forked child, with stores of its own."""
        self._lock = native.lock()
        for url, store in self._stores.items():
            store.abandon()
            _inherited.append(store)
            self._stores[url] = new_store(url)


shelf = Shelf()
