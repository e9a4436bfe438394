import gzip
import json
import re
from pathlib import Path

import pytest

CSV = """tail,when,n,note
N1,2013-01-01T10:00:00Z,007,
N2,2013-01-01 10:05,1.5,"two
lines, quoted"
,1357034460000,-3,NA
"""


def test_csv(run, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(CSV)
    result = run("import", "new", file, "-k", "tail", "-t", "when", "--null", "NA", "--create", "--partitions", "1")
    assert "created topic new" in result.stderr
    assert "3 records appended to new" in result.stderr
    records = run.json("consume", "new")
    assert [record["key"] for record in records] == ["N1", "N2", None]
    assert [record["timestamp"] for record in records] == [1357034400000, 1357034700000, 1357034460000]
    assert [json.loads(record["value"]) for record in records] == [
        {"tail": "N1", "when": "2013-01-01T10:00:00Z", "n": "007", "note": None},
        {"tail": "N2", "when": "2013-01-01 10:05", "n": 1.5, "note": "two\nlines, quoted"},
        {"tail": None, "when": 1357034460000, "n": -3, "note": None},
    ]


def test_csv_as_text_packed_with_a_byte_order_mark_and_from_standard_input(run):
    packed = gzip.compress(b"\xef\xbb\xbfa%,b\r\n1,x\r\n")
    run("import", "plain", "-", "--format", "csv", "--as-text", input=packed)
    assert json.loads(run.json("consume", "plain", "--last", "1")[0]["value"]) == {"a%": "1", "b": "x"}


def test_json_lines_stay_as_they_are(run, tmp_path):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"id": 7,  "at": 60, "x": [1]}\n\n{"id": "a", "at": 61.5}\n'))
    run("import", "plain", file, "-k", "id", "-t", "at", "--timestamp-format", "s")
    first, second = run.json("consume", "plain", "--last", "2")
    assert (first["key"], first["timestamp"], first["value"]) == ("7", 60_000, '{"id": 7,  "at": 60, "x": [1]}')
    assert (second["key"], second["timestamp"]) == ("a", 61_500)


@pytest.mark.parametrize(
    ("format_", "text", "expected"),
    [
        ("ms", "5", 5),
        ("s", "1.25", 1250),
        ("us", "5000", 5),
        ("ns", "5000000", 5),
        ("%d.%m.%Y %H:%M", "01.01.2013 10:00", 1357034400000),
        ("%Y-%m-%dT%H:%M%z", "2013-01-01T11:00+0100", 1357034400000),
        ("auto", "1357034400000", 1357034400000),
        ("iso", "2013-01-01T11:00:00+01:00", 1357034400000),
    ],
)
def test_timestamp_formats(run, format_, text, expected):
    run("import", "plain", "-", "--format", "csv", "-t", "t", "--timestamp-format", format_, input=f"t\n{text}\n")
    assert run.json("consume", "plain", "--last", "1")[0]["timestamp"] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3\n", "line 3: 1 cells, but the first line has 2 columns"),
        (b"a,b\n1,2\n3,\xff\n", "line 3: not UTF-8: byte 0xff at column 3"),
        (b'a,b\n1,2\n3,"x" y\n', "line 3: "),
        (b'a,b\n1,2\n3,"never closed\n', "line 3: unexpected end of data"),
        (b"a,a\n", "two columns are named 'a'"),
        (b"", "no column names"),
    ],
)
def test_a_bad_line_stops_before_its_chunk(run, tmp_path, content, message):
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    result = run("import", "plain", file, code=2)
    assert f"{file}, " in result.stderr
    assert message in result.stderr
    assert len(run.json("consume", "plain")) == 100


def test_chunks_before_a_bad_line_stay_and_are_counted(run, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("a\n" + "x\n" * 10_500 + "y,z\n")
    result = run("import", "plain", file, code=2)
    assert "line 10502: 2 cells" in result.stderr
    assert "of the rows before, 10,000 were appended" in result.stderr
    assert run.json("info", "plain")[0]["offsets"] == 10_100


def test_skip_bad_counts_and_names_them(run, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"a,b\n1,2\n3\n\xff,1\n4,5\n")
    result = run("import", "plain", file, "--skip-bad")
    assert "line 3: 1 cells" in result.stderr
    assert "line 4: not UTF-8" in result.stderr
    assert "2 bad rows left out" in result.stderr
    assert [json.loads(record["value"])["a"] for record in run.json("consume", "plain", "--last", "2")] == [1, 4]
    assert run.json("import", "plain", file, "--skip-bad")[0]["bad_rows"] == 2


def test_bad_json_lines(run, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"k": 1}\n{"k": \n')
    assert "line 2: not JSON" in run("import", "plain", file, code=2).stderr
    file.write_text('{"k": 1}\n{"j": 1}\n[1]\n' + "[" * 100_000 + "\n")
    result = run("import", "plain", file, "-k", "k", "--skip-bad")
    for reason in ("line 2: no field 'k'; there are j", "line 3: not an object", "line 4: JSON is nested too deep"):
        assert reason in result.stderr


def test_a_gzip_file_that_is_cut_or_broken(run, tmp_path):
    file = tmp_path / "a.csv.gz"
    whole = gzip.compress(b"a\n" + b"%d\n" * 5000, mtime=0)
    file.write_bytes(whole[:-12])
    assert re.search(r"after line \d+: ", run("import", "plain", file, code=2).stderr)
    file.write_bytes(whole[:-8] + b"\0" * 8)
    assert "after line 5001: CRC check failed" in run("import", "plain", file, code=2).stderr
    assert len(run.json("consume", "plain")) == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "plain", "-"), "Give --format"),
        (("import", "plain", "missing.csv"), "does not exist"),
        (("import", "plain", "-", "--format", "csv", "--partitions", "2"), "made by --create"),
        (("import", "plain", "-", "--format", "records", "-k", "a"), "its own key"),
        (("import", "plain", "-", "--format", "csv", "--timestamp-format", "days"), "or a pattern"),
        (("import", "plain", "-", "--format", "csv", "-k", "c"), "no column 'c'; there are a, b"),
        (("import", "plain", "-", "--format", "csv", "-t", "a"), "line 2: timestamp '-5' is no ISO 8601"),
    ],
)
def test_what_is_asked_wrongly(run, arguments, message):
    assert message in run(*arguments, input="a,b\n-5,2\n", code=2).stderr


def test_a_missing_topic_is_not_made_unasked(run):
    assert "there is no topic 'new'" in run("import", "new", "-", "--format", "csv", input="a\n1\n", code=3).stderr


def test_export_json_lines_can_be_imported_again(run, tmp_path):
    run(
        "produce",
        "orders",
        "--format",
        "json",
        input='{"key": {"base64": "/w=="}, "value": null, "headers": [["h", null]]}\n',
    )
    file = tmp_path / "orders.jsonl"
    result = run("export", "orders", file)
    assert "31 records written" in result.stderr
    run("import", "copy", file, "--format", "records", "--create", "--partitions", "3")
    fields = ("timestamp", "key", "value", "headers")
    before, after = (
        sorted(json.dumps([record[name] for name in fields]) for record in run.json("consume", topic))
        for topic in ("orders", "copy")
    )
    assert before == after
    assert list(tmp_path.glob(".*unfinished")) == []


def test_export_csv_and_ranges(run, tmp_path):
    lines = run("export", "plain", "--format", "csv", "--from", "5", "--to", "7").stdout.splitlines()
    assert lines == [
        "partition,offset,timestamp,key,value,headers",
        "0,5,1357034700000,,value-5,",
        "0,6,1357034760000,,value-6,",
    ]
    file = tmp_path / "a.csv.gz"
    (report,) = run.json("export", "plain", file, "--from", "2013-01-01T11:00")
    assert report["records"] == 40
    assert gzip.decompress(file.read_bytes()).decode().splitlines()[1].startswith("0,60,")


def test_export_parquet(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    run("export", "orders", file, "-p", "1")
    table = parquet.read_table(file)
    expected = run.json("consume", "orders", "-p", "1")
    assert table.column("offset").to_pylist() == [record["offset"] for record in expected]
    assert table.column("value").to_pylist() == [record["value"].encode() for record in expected]


def test_parquet_without_pyarrow_names_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "logstoredb[arrow]" in run("export", "orders", tmp_path / "a.parquet", code=2).stderr


def test_export_replaces_a_file_only_if_told(run, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("mine")
    assert "--force" in run("export", "plain", file, code=2).stderr
    assert file.read_text() == "mine"
    run("export", "plain", file, "--force")
    assert len(file.read_text().splitlines()) == 100
    assert "Give --format" in run("export", "plain", tmp_path / "a.txt", code=2).stderr


def test_an_export_that_meets_damage_leaves_no_file(run, directory, tmp_path):
    log = sorted((directory / "plain-0").glob("*.log"))[1]
    data = bytearray(log.read_bytes())
    data[100] ^= 1
    log.write_bytes(data)
    result = run("export", "plain", tmp_path / "a.jsonl", code=6)
    assert log.name in result.stderr
    assert list(tmp_path.glob("*a.jsonl*")) == []


def test_the_shipped_example(run):
    example = Path(__file__).parents[2] / "examples" / "data" / "flights-2013-01.csv.gz"
    run(
        "import",
        "flights",
        example,
        "-k",
        "tailnum",
        "-t",
        "time_hour",
        "--null",
        "NA",
        "--create",
        "--partitions",
        "4",
    )
    (facts,) = run.json("info", "flights")
    assert facts["offsets"] == 27_004
    assert len(facts["logs"]) == 4
