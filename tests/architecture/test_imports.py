"""Which module may import which: contracts of import-linter for ``.py``, and the same arrows for ``.pyx`` and ``.pxd``,
which it does not see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import logstore

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "logstore" / "_native"
SOURCES = sorted([*NATIVE.glob("*.pyx"), *NATIVE.glob("*.pxd")])

# What the binding may import: itself, the nouns and the errors, and Python.
ALLOWED = ("logstore._native", "logstore.errors", "logstore.model")
# numpy only where an argument or a result is an array, inside of a function.
LATE = {"numpy"}
_IMPORT = re.compile(r"^(\s*)(?:from\s+(\S+)\s+c?import\s|c?import\s+(\S+))", re.MULTILINE)


def imports_of(path: Path) -> list[tuple[bool, str]]:
    """Modules imported, each with whether that happens at the top."""
    return [(not match[1], (match[2] or match[3]).rstrip(",")) for match in _IMPORT.finditer(path.read_text())]


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_binding_imports_only_what_lies_below_it(path):
    for at_top, module in imports_of(path):
        if module.startswith("logstore"):
            assert any(is_within(module, allowed) for allowed in ALLOWED), module
        elif module.split(".")[0] not in {*sys.stdlib_module_names, "cpython", "libc", "cython"}:
            assert module in LATE, module
            assert not at_top, f"{module} has to load when it is used"


def test_binding_has_no_cycles():
    """Through ``cimport`` and ``import`` at the top."""
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        edges = graph.setdefault(path.stem, set())
        edges.update(
            module.removeprefix("logstore._native.")
            for at_top, module in imports_of(path)
            if at_top and module.startswith("logstore._native.")
        )
        edges.discard(path.stem)
    done: set[str] = set()
    while ready := {name for name in graph if name not in done and graph[name] <= done}:
        done |= ready
    assert done == set(graph), f"in a cycle: {sorted(set(graph) - done)}"


def test_the_scan_for_imports_sees_all_forms(tmp_path):
    path = tmp_path / "made.pyx"
    path.write_text("from a.b cimport c\ncimport d\nfrom e import (\n    f,\n)\ndef g():\n    import h\n")
    assert imports_of(path) == [(True, "a.b"), (True, "d"), (True, "e"), (False, "h")]


def test_core_knows_nothing_of_python():
    for path in (ROOT / "csrc").rglob("*.[ch]"):
        assert "Python.h" not in path.read_text(), path


def test_few_files_name_operating_system_calls():
    """`file_posix.c`: so a file that fails or records can stand in for all others. `file_identity_posix.c` and
    `directory_watch_posix.c` touch no content,
    `wake_table_posix.c` none that counts; `crc32c.c` asks which instructions the processor has, `work_ahead_posix.c`
    how many processors there are."""
    system_headers = re.compile(r"#include <(unistd|fcntl|sys/\w+)\.h>")
    found = {path.name for path in (ROOT / "csrc" / "src").glob("*.[ch]") if system_headers.search(path.read_text())}
    allowed = {
        "file_posix.c", "file_map_posix.c", "file_identity_posix.c", "directory_watch_posix.c", "crc32c.c",
        "work_ahead_posix.c", "wake_table_posix.c",
    }
    assert found <= allowed, found


def test_layers_hold():
    """The contracts in pyproject.toml."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command; "
         "sys.argv = ['lint-imports', '--no-cache']; lint_imports_command()"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "KEPT" in done.stdout
    assert "BROKEN" not in done.stdout


LIGHT = """
import sys
before = set(sys.modules)
import logstore
after_import = set(sys.modules) - before
import tempfile
with tempfile.TemporaryDirectory() as path, logstore.open(path) as broker:
    topic = broker.create_topic("orders", partitions=2)
    topic.append(b"value", b"key", headers=[("trace", b"1")])
    topic.append_many([b"a", b"b"], [b"k", None], timestamps=[1, 2])
    assert len(list(topic.read())) == 3
    assert len(list(topic.read("-1h"))) == 1
print(" ".join(sorted(after_import)))
print(" ".join(sorted(sys.modules)))
"""
HEAVY = {"numpy", "click", "rich", "zstandard", "cramjam", "pyarrow", "asyncio", "polars"}


def test_import_and_first_use_are_light():
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True, check=True)
    after_import, after_use = (line.split() for line in done.stdout.splitlines())
    # __future__ may be there already: an editable install loads it.
    assert set(after_import) - {"__future__"} == {"logstore", "logstore._version"}
    assert not HEAVY & {module.split(".")[0] for module in after_use}


OPENED = """
import sys, logstore
with logstore.open(sys.argv[1]) as broker:
    print(broker.topic("orders").logs[0].end_offset)
    print(" ".join(sorted(sys.modules)))
"""
LATER = {
    "datetime", "logstore.broker_api", "logstore.broker.offsets_schema", "logstore.broker.transaction_state",
    "logstore.clients",
}  # fmt: skip


def test_opening_loads_what_opening_takes(tmp_path):
    """The first open of a process is as quick as what it loads."""
    with logstore.open(tmp_path) as broker:
        broker.create_topic("orders").append(b"value")
    done = subprocess.run(
        [sys.executable, "-c", OPENED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    end_offset, loaded = done.stdout.splitlines()
    assert end_offset == "1"
    assert not LATER & set(loaded.split())
