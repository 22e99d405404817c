"""Seeds: where credentials begin that are made without tokens.

Tokens may be loaded when they are first needed, from wherever an application
keeps them. The first flight does that; a pair that has expired by then is
renewed on the same flight, so that nobody is given one.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable
from typing import cast

from keyturn.client import loop
from keyturn.client.carriers import Carrier
from keyturn.client.grants import Grant, Wire
from keyturn.errors import (
    ConfigurationError,
    KeyturnError,
    NotSignedIn,
    RefreshMisconfigured,
    RefreshUnavailable,
)
from keyturn.tokens import Tokens

Seed = Callable[[], Tokens | None] | Callable[[], Awaitable[Tokens | None]]


def check_loader(loader: object, takes: str = "") -> None:
    """Raise ConfigurationError for what cannot be called with the arguments that `takes` names."""
    count = 1 if takes else 0
    if isinstance(loader, type) or not callable(loader):
        raise ConfigurationError(f"tokens= takes a callable ({takes}) -> keyturn.Tokens | None")
    try:
        inspect.signature(loader).bind(*[None] * count)
    except TypeError:
        raise ConfigurationError(f"the callable given as tokens= is called with ({takes})") from None
    except ValueError:  # a builtin, which does not tell
        return


class Seeded:
    """The grant of a first flight: loads the seed, and goes on with `grant` where it has expired."""

    needs_refresh_token = False

    def __init__(self, grant: Grant, seed: Seed) -> None:
        self.rotates, self.replay_window = grant.rotates, grant.replay_window
        self.timeout = 2 * grant.timeout  # for the seed, and for what it may have to buy
        self.carrier: Carrier = grant.carrier
        self._grant, self._seed = grant, seed
        self.loaded: Tokens | None = None

    def __repr__(self) -> str:
        return f"<Seeded {self._grant!r}>"

    def is_answered_by(self, result: object) -> bool:
        """Tell whether `result` came from the seed, there or not there, rather than from the end point."""
        return result is self.loaded if self.loaded is not None else type(result) is NotSignedIn

    async def exchange(self, tokens: Tokens, wire: Wire) -> Tokens:
        """Return the seed, or what it buys.

        Raises NotSignedIn where there is none, RefreshUnavailable where it cannot be loaded.
        """
        if self.loaded is None:
            self.loaded = await self.load()
        if self.loaded.left(wire.clock()) > 0:
            return self.loaded
        async with asyncio.timeout(self._grant.timeout):
            return await self._grant.exchange(self.loaded, wire)

    async def load(self) -> Tokens:
        """Return the seed. Raises as `exchange`."""
        try:
            async with asyncio.timeout(self._grant.timeout):
                pair = await self._call()
        except KeyturnError:
            raise
        except (TypeError, AttributeError, LookupError, NameError, AssertionError) as error:
            raise RefreshMisconfigured(
                f"the callable given as tokens= fails: {type(error).__name__} {_origin(error)}"
            ) from None
        except Exception as error:  # noqa: BLE001 - a database that is down, and whatever else users' code raises
            raise RefreshUnavailable(
                f"the tokens cannot be loaded: {type(error).__name__} {_origin(error)}"
            ) from None
        if pair is None:
            raise NotSignedIn("the callable given as tokens= knows of none: sign in first")
        if not isinstance(pair, Tokens):
            raise RefreshMisconfigured(
                f"the callable given as tokens= must return keyturn.Tokens or None, not {type(pair).__name__}"
            )
        return pair

    async def _call(self) -> object:
        if inspect.iscoroutinefunction(self._seed):
            return await self._seed()
        result: object = await loop.on_thread(cast(Callable[[], object], self._seed), "keyturn-seed")
        return await result if inspect.isawaitable(result) else result


def _origin(error: BaseException) -> str:
    """Return where an exception was raised; its text may hold a token, so it is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
