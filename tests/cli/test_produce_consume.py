import json

import pytest

import logstore
from logstore.cli.output import json_line
from logstore.cli.record_json import json_from_record, record_line


def test_lines_become_values_and_come_back(run):
    result = run("produce", "plain", input=b"one\ntwo\r\n\nlast without end")
    assert "4 records appended to plain" in result.stderr
    assert "offsets 100 to 103" in result.stderr
    assert result.stdout == ""
    back = run("consume", "plain", "--last", "4", "--values-only").stdout_bytes
    assert back == b"one\ntwo\n\nlast without end\n"


def test_keys_by_delimiter_and_nulls(run):
    run("produce", "plain", "-K", r"\t", "--null", "NIL", input="a\tx\ty\nNIL\tNIL\n")
    first, second = run.json("consume", "plain", "--last", "2")
    assert (first["key"], first["value"]) == ("a", "x\ty")
    assert (second["key"], second["value"]) == (None, None)
    as_they_are = run("consume", "plain", "--last", "2", "-K", ":").stdout
    assert as_they_are == "a:x\ty\nnull:null\n"


def test_a_line_without_key_is_named_and_those_before_it_stay(run):
    result = run("produce", "plain", "-K", ",", input="a,1\nb,2\nwrong\nc,3\n", code=2)
    assert "standard input, line 3: no key delimiter ','" in result.stderr
    assert "2 records appended" in result.stderr
    assert run("consume", "plain", "--last", "2", "-K", ",").stdout == "a,1\nb,2\n"


def test_json_lines_round_trip(run):
    lines = [
        {"key": "k", "value": "v", "timestamp": 5, "headers": [["a", "1"], ["a", None], ["b", {"base64": "/w=="}]]},
        {"key": {"base64": "AP8="}, "value": None, "timestamp": 6, "headers": []},
        {"value": 'ü\n"', "headers": {"only": "one"}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (report,) = run.json("produce", "plain", "--format", "json", "-p", "0", input=text)
    assert report["partitions"] == {"0": {"records": 3, "first_offset": 100, "last_offset": 102}}
    first, second, third = run.json("consume", "plain", "--from", "100")
    assert {name: first[name] for name in lines[0]} == lines[0]
    assert {name: second[name] for name in lines[1]} == lines[1]
    assert (third["key"], third["value"], third["headers"]) == (None, 'ü\n"', [["only", "one"]])
    assert third["timestamp"] > 1_700_000_000_000


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1: Expecting"),
        ("[]", "not an object"),
        ("{}", 'no field "value"'),
        ('{"value": 1}', "value must be a text"),
        ('{"value": {"base64": "?"}}', "no base64"),
        ('{"value": "v", "kye": "k"}', "unknown field 'kye'"),
        ('{"value": "v", "timestamp": "now"}', "timestamp must be milliseconds"),
        ('{"value": "v", "headers": [1]}', "headers must be"),
        ('{"value": "\\ud800"}', "surrogate"),
        ("[" * 100_000, "too deep"),
    ],
)
def test_bad_json_is_one_clear_line(run, line, reason):
    result = run("produce", "plain", "--format", "json", input=line + "\n", code=2)
    assert reason in result.stderr
    assert "standard input, line 1" in result.stderr


def test_a_record_line_is_what_a_json_encoder_makes(run, directory):
    values = [None, b"", b"plain", 'ü\n"\\\x00\x7f\u2028'.encode(), b"\xff\x00"]
    with logstore.open(directory) as broker:
        plain = broker.topic("plain")
        for value in values:
            for headers in (None, [("a", value), ('\udcff"', b"x")], [("ü", value)]):
                plain.append(value, value, headers=headers, timestamp=-1 if value is None else 5)
        found = 0
        for record in plain.read(100):
            assert record_line(record) == json_line(json_from_record(record))
            found += 1
    assert found == 15


def test_headers_and_partition(run):
    run("produce", "orders", "-p", "2", "-H", "trace=a=1", "-H", "x=", input="v\n")
    (record,) = run.json("consume", "orders", "--last", "1")
    assert (record["partition"], record["headers"]) == (2, [["trace", "a=1"], ["x", ""]])
    assert "NAME=VALUE" in run("produce", "orders", "-H", "x", input="v\n", code=2).stderr
    assert "no partition 9" in run("produce", "orders", "-p", "9", input="v\n", code=3).stderr


def test_text_shows_where_and_when_and_escapes_what_a_terminal_would_act_on(run):
    run(
        "produce",
        "plain",
        "--format",
        "json",
        input='{"value": "\\u001b[2Jx", "key": {"base64": "/w=="}, "timestamp": 0}\n',
    )
    line = run("consume", "plain", "--last", "1").stdout
    assert line == "0:100  1970-01-01 00:00:00.000  \\xff  \\x1b[2Jx\n"


@pytest.mark.parametrize(
    ("arguments", "first", "last"),
    [
        ((), 0, 99),
        (("--from", "earliest", "-n", "3"), 0, 2),
        (("--from", "40"), 40, 99),
        (("--from", "40", "--to", "50"), 40, 49),
        (("--from", "2013-01-01T10:30:00Z", "--to", "2013-01-01T11:00:00+00:00"), 30, 59),
        (("--from", "2013-01-01 10:30"), 30, 99),
        (("--to", "2013-01-01T10:00:01"), 0, 0),
        (("--last", "5"), 95, 99),
        (("--last", "500"), 0, 99),
        (("--last", "5", "-n", "2"), 95, 96),
    ],
)
def test_ranges(run, arguments, first, last):
    offsets = [record["offset"] for record in run.json("consume", "plain", *arguments)]
    assert offsets == list(range(first, last + 1))


def test_empty_ranges(run):
    for arguments in (("--from", "latest"), ("--from", "-1h"), ("--last", "0"), ("-n", "0"), ("--from", "2014-01-01")):
        assert run("consume", "plain", *arguments).stdout == "", arguments


def test_partitions_are_merged_by_time_and_last_spans_them(run):
    values = [json.loads(record["value"])["n"] for record in run.json("consume", "orders")]
    assert values == list(range(30))
    last = [json.loads(record["value"])["n"] for record in run.json("consume", "orders", "--last", "4")]
    assert last == [26, 27, 28, 29]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("consume", "plain", "--from", "101"), 3, "offset 101 is outside"),
        (("consume", "plain", "--from", "soon"), 2, "is no offset"),
        (("consume", "plain", "--from", "-1x"), 2, "no age"),
        (("consume", "plain", "--last", "1", "--from", "1"), 2, "--last counts back"),
        (("consume", "plain", "-f", "--to", "5"), 2, "--follow has no end"),
        (("consume", "orders", "--from", "1"), 2, "--partition"),
        (("consume", "orders", "-p", "3"), 3, "0 to 2"),
        (("consume", "order"), 3, "did you mean 'orders'?"),
        (("consume", "plain", "-K", ":", "--values-only"), 2, "-K is for"),
        (("produce", "missing"), 3, "there is no topic"),
        (("produce", "plain", "-K", ""), 2, "must not be empty"),
        (("produce", "plain", "--format", "json", "-K", ":"), 2, "JSON lines carry"),
    ],
)
def test_what_is_asked_wrongly(run, arguments, code, message):
    result = run(*arguments, code=code)
    assert message in result.stderr
    assert result.stdout == ""
