"""The asyncio face of the background writer: the same service, awaiting instead of blocking."""

from lighter_async.aio.writer import AsyncBackgroundWriter

__all__ = ["AsyncBackgroundWriter"]
