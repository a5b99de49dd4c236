"""The earlier name of `StoredSeries`."""

from lighter_async.callback.stored_series import StoredSeries as Known

__all__ = ["Known"]
