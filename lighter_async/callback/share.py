"""The earlier name of `StoredSeries`."""

from lighter_async.callback.series import StoredSeries as Known

__all__ = ["Known"]
