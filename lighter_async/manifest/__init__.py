"""The manifest: what is stored, one line per unit, next to the results.

Resuming and verifying go by it: a line is written only after its files are stored, so it says what is done and what was
stored. There is one file per rank, ``.lighter-async/manifest-RANK.jsonl``, that only ever grows.
"""

from lighter_async.manifest.entry import Record, RunRecord
from lighter_async.manifest.line import Kind, Loader, OutputName, Stored, StoredPart, StoredRows, checksum
from lighter_async.manifest.log import ManifestLog
from lighter_async.manifest.reader import Manifest, read_manifest

__all__ = [
    "Kind",
    "Loader",
    "Manifest",
    "ManifestLog",
    "OutputName",
    "Record",
    "RunRecord",
    "Stored",
    "StoredPart",
    "StoredRows",
    "checksum",
    "read_manifest",
]
