"""Watchers: who watches which name, and the words that tell them of a change in another process."""

from __future__ import annotations

import json
import logging

from keyturn.client.record import Version
from keyturn.client.token_stores import Changed

logger = logging.getLogger("keyturn.client")


def news(name: str, version: Version | None) -> str:
    """Return what is told of a change: whose it is and its version, None where the record is gone."""
    told: dict[str, object] = {"name": name}
    if version is not None:
        told["epoch"], told["generation"] = version
    return json.dumps(told, separators=(",", ":"))


class Watchers:
    """Who watches which name in one store."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Changed]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def add(self, name: str, changed: Changed) -> None:
        """Have `changed` told of the name."""
        self._by_name.setdefault(name, []).append(changed)

    def remove(self, name: str, changed: Changed) -> None:
        """Undo one `add`; one that does not watch is no error."""
        watching = self._by_name.get(name, [])
        if changed in watching:
            watching.remove(changed)
        if not watching:
            self._by_name.pop(name, None)

    def clear(self) -> None:
        """Forget all."""
        self._by_name.clear()

    def hear(self, told: str | bytes) -> None:
        """Tell who watches what `news` says; anything else is nobody's, since others may speak here too."""
        try:
            match json.loads(told):
                case {"name": str(name), "epoch": str(epoch), "generation": int(generation)}:
                    self.tell(name, (epoch, generation))
                case {"name": str(name), **more} if not more:
                    self.tell(name, None)
        except (ValueError, RecursionError):
            pass

    def tell(self, name: str, version: Version | None) -> None:
        """Call all who watch a name. What one raises is logged, and keeps nothing from the others."""
        for changed in list(self._by_name.get(name, ())):
            try:
                changed(version)
            except Exception:
                logger.exception("keyturn: a watcher of the token store failed")

    def tell_all(self) -> None:
        """Say of every name that something may have been missed."""
        for name in list(self._by_name):
            self.tell(name, None)
