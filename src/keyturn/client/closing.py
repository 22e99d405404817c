"""Closing: both kinds of `with` for what has `close` and `aclose`."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Self


class Closing(abc.ABC):
    """What is closed at the end of a `with` or an `async with`."""

    @abc.abstractmethod
    def close(self, timeout: float | None = None) -> None:
        """Close it."""

    @abc.abstractmethod
    async def aclose(self, timeout: float | None = None) -> None:
        """Await what `close` does."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()
