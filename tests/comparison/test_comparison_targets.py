"""The comparison's own arithmetic: ratios, targets, and what is said of those who were not measured."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from benchmarks.compare.measure import Contestant, Measured, NotMeasuredError, Work
from benchmarks.compare.report import BEGIN, END, as_markdown, fill_in
from benchmarks.compare.runner import Row, WorkResult, run_work
from benchmarks.compare.table import as_json
from benchmarks.compare.targets import PEERS, Target, at_least, at_most, times, verdicts, within
from benchmarks.sample import sample_records

MACHINE = {
    "date": "2026-01-01T00:00:00", "commit": "abc", "processor": "p", "cores": 2, "memory_gib": 1, "file_system": "ext4",
    "system": "s", "python": "3", "versions": {"lmdb": "1"}, "load_before": 0.5,
}  # fmt: skip


def contestant(name, kind, start=None):
    return Contestant(name, kind, start)


def result_of(rates, *targets, amount="", value_bytes=100):
    """`rates`: name -> (kind, figures); the first is logstore's."""
    contestants = tuple(contestant(name, kind) for name, (kind, _values) in rates.items())
    work = Work("work", "A work", "records", contestants, targets=targets, amount=amount)
    rows = [
        Row(each, list(values), bool(amount), [] if amount else [1 / value for value in values])
        for each, (_kind, values) in zip(contestants, rates.values(), strict=True)
    ]
    return WorkResult(work, rows, value_bytes)


def test_the_ratio_of_amounts_is_how_much_less():
    result = result_of({"us": ("logstore", [10.0]), "them": ("peer", [30.0])}, amount="bytes")
    us, them = result.rows
    assert us.ratio_to(them) == 3.0
    assert them.ratio_to(us) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("us", at_least(200)), 0.5),
        (Target("us", times(2, "limit")), 0.25),
        (Target("us", times(2, PEERS)), 1.25),
        (Target("us", at_least(200), times(1, PEERS)), 2.5),
        (Target("us", [at_least(50), times(1, "limit")]), 0.5),
        (Target("us", within(0.02)), 2.0),
        (Target("us", times(1, "absent")), None),
        (Target("us", at_least(50), times(1, "absent")), 2.0),
    ],
)
def test_a_target_is_met_by_one_of_its_wishes_and_by_all_of_a_group(target, met):
    rates = {
        "us": ("logstore", [90.0, 100.0, 300.0]),
        "slow peer": ("peer", [10.0]),
        "fast peer": ("peer", [40.0]),
        "limit": ("limit", [200.0]),
        "absent": ("peer", []),
    }
    (verdict,) = verdicts(result_of(rates, target))
    assert verdict.met == (None if met is None else pytest.approx(met))
    assert verdict.reached == (None if met is None else met >= 1)


def test_an_amount_is_held_against_the_most_that_is_allowed():
    target = Target("us", at_most(12, "bytes"))
    (verdict,) = verdicts(result_of({"us": ("logstore", [16.0])}, target, amount="bytes"))
    assert verdict.met == 0.75
    assert "missed, at 75%" in verdict.text


def test_targets_for_another_size_of_values_are_not_judged():
    target = Target("us", at_least(1), value_bytes=1000)
    assert verdicts(result_of({"us": ("logstore", [5.0])}, target)) == []


def test_who_cannot_run_is_kept_with_the_reason(tmp_path):
    turns = []

    @contextmanager
    def runs(place):
        yield lambda: turns.append(len(place.sample)) or Measured(len(place.sample), 1000, 1000)

    @contextmanager
    def cannot(place):
        raise NotMeasuredError("its server is not here")
        yield

    contestants = (
        contestant("us", "logstore", runs),
        Contestant("few", "peer", runs, records_max=10),
        contestant("no server", "peer", cannot),
        Contestant("no module", "peer", runs, "no_such_module_anywhere", "its-distribution"),
    )
    result = run_work(Work("work", "A work", "records", contestants), sample_records(50), tmp_path, 3)
    assert turns == [50, 10, 10, 50, 50, 10]  # each round begins one further on, and those who cannot run take no turn
    assert [len(row.values) for row in result.rows] == [3, 3, 0, 0]
    assert result.rows[2].reason == "not measured: its server is not here"
    assert result.rows[3].reason == "not measured: pip install its-distribution"
    report = as_markdown(as_json([result], MACHINE, {"records": 50, "rounds": 3, "value_bytes": (100,)}))
    assert "no module (not measured: pip install its-distribution)" in report


def test_who_fails_in_a_round_is_not_measured_and_the_others_are(tmp_path):
    rounds = []

    @contextmanager
    def start(place):
        def one_round():
            rounds.append(place)
            if len(rounds) == 2:
                raise NotMeasuredError("its server does not start")
            return Measured(10, 1000, 500)

        yield one_round

    @contextmanager
    def start_us(place):
        yield lambda: Measured(10, 1000, 500)

    contestants = (contestant("us", "logstore", start_us), contestant("them", "peer", start))
    result = run_work(Work("work", "A work", "records", contestants), sample_records(50), tmp_path, 4)
    us, them = result.rows
    assert (len(us.values), us.reason) == (4, "")
    assert (them.values, them.cpu_seconds, them.reason) == ([], [], "not measured: its server does not start")
    assert len(rounds) == 2


def test_figures_replace_what_stands_between_the_marks_alone(tmp_path):
    result = result_of({"us": ("logstore", [2e6]), "them": ("peer", [1e6])}, Target("us", at_least(1e6)))
    run = as_json([result], MACHINE, {"records": 1, "rounds": 1, "value_bytes": (100,)})
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        fill_in(page, run, [tmp_path / "plots" / "beside-append.svg"])
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert text.count("| `work` | us: 2.00 M records/s | them | peer | 2.0 x |") == 1
    assert text.count("(plots/beside-append.svg)") == 1


def test_a_page_without_a_place_for_figures_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="no place for figures"):
        fill_in(page, as_json([], MACHINE, {"records": 1, "rounds": 1}), [])
    assert page.read_text() == "nothing here\n"
