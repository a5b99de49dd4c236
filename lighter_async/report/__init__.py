"""What is known of a directory of results, as one page of HTML that needs no network."""

from lighter_async.report.facts import Facts, facts_of
from lighter_async.report.page import page_of

__all__ = ["Facts", "facts_of", "page_of"]
