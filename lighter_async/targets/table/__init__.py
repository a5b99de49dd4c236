"""All samples of a run as the rows of one table."""

from lighter_async.targets.table.sealing import write_again
from lighter_async.targets.table.target import TableTarget

__all__ = ["TableTarget", "write_again"]
