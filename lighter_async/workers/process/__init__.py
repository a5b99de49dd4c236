"""Workers that are helper processes, with an interpreter lock of their own.

`backend` is what the user's process has of them, `helper` is one from inside, `book` is the queue between them,
`letter` is what travels as pickles, `bells` wake who sleeps, `launch` starts a helper, and `interpreter` says which
program that is.
"""

from lighter_async.workers.process.backend import ProcessBackend
from lighter_async.workers.process.interpreter import check_is_no_helper
from lighter_async.workers.process.launch import supported

__all__ = ["ProcessBackend", "check_is_no_helper", "supported"]
