"""The golden vectors of ``tests/vectors``, read once: names, bytes and what they must decode to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[1] / "vectors"
SEGMENT = VECTORS / "segment"
SEGMENT_BASE_OFFSET = 1000

INDEX: dict[str, Any] = json.loads((VECTORS / "index.json").read_text())
GOOD: dict[str, Any] = {v["name"]: v for v in INDEX["vectors"] if v["valid"]}
BAD: dict[str, Any] = {v["name"]: v for v in INDEX["vectors"] if not v["valid"]}


def vector_bytes(name: str) -> bytes:
    return (VECTORS / f"{name}.bin").read_bytes()


def described(data: bytes | None) -> dict[str, Any] | None:
    """Bytes as index.json describes them."""
    if data is None:
        return None
    if len(data) <= 48:
        return {"hex": data.hex()}
    return {"len": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def described_records(records: Any) -> list[dict[str, Any]]:
    return [
        {
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": described(record.key),
            "value": described(record.value),
            "headers": [[name, described(value)] for name, value in record.headers],
        }
        for record in records
    ]


def expected_records(name: str) -> list[dict[str, Any]]:
    vector = GOOD[name]
    if "records_ref" not in vector:
        return list(vector["records"])
    base = vector["records_base_offset"]
    return [record | {"offset": record["offset"] + base} for record in INDEX["record_sets"][vector["records_ref"]]]
