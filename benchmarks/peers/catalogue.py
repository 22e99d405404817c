"""All clients that are measured."""

from __future__ import annotations

import importlib
from types import ModuleType

from benchmarks.peers.peer import Peer

_MODULES = [
    "keyturn_clients",
    "singleflight_auth_clients",
    "authlib_clients",
    "requests_oauthlib_clients",
    "google_auth_clients",
    "azure_core_clients",
    "msal_clients",
    "httpx_auth_clients",
]


def modules() -> list[ModuleType]:
    """Return the module of each library, keyturn's first; it says how its clients are set up."""
    return [importlib.import_module(f"benchmarks.peers.{name}") for name in _MODULES]


def peers(library: str | None = None) -> list[Peer]:
    """Return the clients; of one library if it is named."""
    found: list[Peer] = [peer for module in modules() for peer in module.PEERS]
    return [peer for peer in found if library in (None, peer.library)]


def peer(name: str) -> Peer:
    """Return the client of that name, without importing other libraries than it needs."""
    module = name.partition("/")[0].lower().replace("-", "_") + "_clients"
    for one in importlib.import_module(f"benchmarks.peers.{module}").PEERS:
        if one.name == name:
            return one  # type: ignore[no-any-return]
    raise SystemExit(f"no such client: {name}")
