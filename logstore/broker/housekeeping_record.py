"""``logstore.housekeeping``: what housekeeping did last, for other processes and for when the broker is closed.

A hint and nothing else: JSON, replaced as a whole; missing or damaged, nothing is known.
"""

from __future__ import annotations

import json
import os
from typing import Any

from logstore.broker.housekeeping_report import HousekeepingReport, HousekeepingResult
from logstore.errors import StorageFailureError
from logstore.storage import layout
from logstore.storage.files import read_text, replace_file

__all__ = ["HousekeepingRecord", "read_record", "write_record"]

_RESULTS_MAX = 20
VERSION = 1

HousekeepingRecord = dict[str, Any]


def write_record(directory: str, report: HousekeepingReport) -> None:
    """Replaces the record of a data directory.

    Raises
    ------
    StorageFailureError
    """
    content = {
        "version": VERSION,
        "last_retention_ms": report.last_retention_ms,
        "last_compaction_ms": report.last_compaction_ms,
        "bytes_freed": report.bytes_freed,
        "results": [result._asdict() for result in report.results[-_RESULTS_MAX:]],
        "failures": [
            {"topic": place.topic, "partition": place.partition, "reason": reason}
            for place, reason in report.failures.items()
        ],
    }
    replace_file(os.path.join(directory, layout.HOUSEKEEPING_FILE), json.dumps(content, indent=1).encode())


def read_record(directory: str) -> HousekeepingRecord | None:
    """What housekeeping did last in a data directory, with the keys that `write_record` writes; None where nothing is
    known."""
    try:
        text = read_text(os.path.join(directory, layout.HOUSEKEEPING_FILE))
        content = json.loads(text or "null")
        if not isinstance(content, dict) or content.get("version") != VERSION:
            return None
        for name in ("last_retention_ms", "last_compaction_ms", "bytes_freed"):
            if type(content[name]) is not int:
                return None
        content["results"] = [HousekeepingResult(**result)._asdict() for result in content["results"]]
        content["failures"] = [{name: failure[name] for name in ("topic", "partition", "reason")}
                               for failure in content["failures"]]
    except (StorageFailureError, ValueError, KeyError, TypeError):
        return None
    return content
