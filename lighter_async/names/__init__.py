"""Names of samples: which ones may become files (`checks.py`), and which ones a run has used (`claims.py`)."""

from lighter_async.names.checks import (
    RESERVED_PREFIX,
    TABLES_FOLDER,
    Name,
    check_name,
    check_names,
    check_object,
    name_of,
    with_suffix,
    with_suffixes,
)
from lighter_async.names.claims import Claims, claims_of, let_go_of_unreachable
from lighter_async.names.number_ranges import Numbers

__all__ = [
    "RESERVED_PREFIX",
    "TABLES_FOLDER",
    "Claims",
    "Name",
    "Numbers",
    "check_name",
    "check_names",
    "check_object",
    "claims_of",
    "let_go_of_unreachable",
    "name_of",
    "with_suffix",
    "with_suffixes",
]
