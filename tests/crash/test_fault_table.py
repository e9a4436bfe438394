"""Each fault of `faults.py` has a test that names it, and the documentation says which."""

from __future__ import annotations

import faults


def test_each_fault_has_a_test() -> None:
    shown = {mark.number for mark in faults.marks()}
    missing = [f"{number}: {fault.name}" for number, fault in faults.FAULTS.items() if number not in shown]
    assert not missing, f"no test is marked with {missing}"


def test_marks_name_their_fault() -> None:
    for mark in faults.marks():
        assert mark.number in faults.FAULTS, mark
        assert mark.name == faults.FAULTS[mark.number].name, mark


def test_the_tables_in_the_documentation_are_these() -> None:
    for page, table in faults.pages().items():
        text = page.read_text(encoding="utf-8")
        assert faults.rewritten(text, table) == text, f"{page}: run python -m tests.crash --faults --write"


def test_a_fault_without_a_test_is_noticed(monkeypatch) -> None:
    monkeypatch.setitem(faults.FAULTS, 99, faults.Fault("made up", "nothing"))
    assert 99 not in {mark.number for mark in faults.marks()}
    assert "| 99 | made up |  |" in faults.table_of_tests()
