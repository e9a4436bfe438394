"""A folder where fsync costs nothing, and the shim."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import shim


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """For what a killed process leaves, any file system will do: in memory, where there is room."""
    if not os.access("/dev/shm", os.W_OK) or shutil.disk_usage("/dev/shm").free < 1 << 30:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="logstore-crash-", dir="/dev/shm"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim.build(tmp_path_factory.mktemp("shim"))
