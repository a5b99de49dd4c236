"""The books of one writer: what may come in (`admission`), what became of it (`accounts`), who waits (`waiting`).

`Ledger` keeps the three under one lock.
"""

from lighter_async.ledger.admission import Reservation
from lighter_async.ledger.failures import Failures
from lighter_async.ledger.ledger import Ledger
from lighter_async.ledger.waiting import Bell

__all__ = ["Bell", "Failures", "Ledger", "Reservation"]
