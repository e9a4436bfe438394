import os
import shutil
from pathlib import Path

import pytest

import logstore

KAFKA_DIRECTORIES = [
    Path(__file__).parents[1] / "data" / name / "data" for name in ("kafka_broker_dir", "kafka_broker_dir_killed")
]


def flip(path, position, mask=1):
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


@pytest.fixture
def logs(directory):
    return sorted((directory / "plain-0").glob("*.log"))


def test_info(run, directory):
    (facts,) = run.json("info")
    assert (facts["topics"], facts["partitions"], facts["offsets"]) == (2, 4, 130)
    plain = facts["logs"][3]
    assert (plain["log_start_offset"], plain["log_end_offset"], plain["flushed_offset"]) == (0, 100, 100)
    assert (plain["first_timestamp"], plain["last_timestamp"]) == (1357034400000, 1357034400000 + 99 * 60_000)
    assert plain["size_bytes"] == sum(path.stat().st_size for path in (directory / "plain-0").glob("*.log"))
    assert plain["durability"] == "flushed"
    text = run("info", "plain").stdout
    assert text.splitlines()[1].split()[:5] == ["plain", "0", "0", "100", "100"]
    assert "2013-01-01 11:39:00" in text
    assert "plain" in run("info", "plian", code=3).stderr


def test_info_tells_of_damage_and_still_shows_the_rest(run, directory, logs):
    flip(logs[0], 100)
    (facts,) = run.json("info")
    assert facts["offsets"] == 130


def test_segment_list(run, logs):
    segments = run.json("segment", "list", "plain")
    assert [segment["base_offset"] for segment in segments] == [int(path.stem) for path in logs]
    assert [segment["next_offset"] for segment in segments] == [*(int(path.stem) for path in logs[1:]), 100]
    assert [segment["size_bytes"] for segment in segments] == [path.stat().st_size for path in logs]
    assert segments[0]["index_entries"] > 0
    assert len(run("segment", "list", "plain").stdout.splitlines()) == len(logs) + 1
    assert "no partition 1" in run("segment", "list", "plain", "-p", "1", code=3).stderr


def test_dump_shows_each_batch_and_record(run, logs):
    batches = run.json("segment", "dump", logs[0])
    assert [batch["base_offset"] for batch in batches] == list(range(0, int(logs[1].stem), 10))
    assert {batch["records"] for batch in batches} == {10}
    assert batches[1]["position"] == batches[0]["size_bytes"]
    lines = run.json("segment", "dump", "--records", logs[0])
    records = [line["record"] for line in lines if "record" in line]
    assert [record["value"] for record in records] == [f"value-{n}" for n in range(len(batches) * 10)]
    text = run("segment", "dump", "-r", logs[0]).stdout
    assert "0 to 9" in text
    assert "value-7" in text


def test_dump_of_the_files_beside(run, logs):
    batches = {batch["last_offset"]: batch["position"] for batch in run.json("segment", "dump", logs[1])}
    entries = run.json("segment", "dump", logs[1].with_suffix(".index"))
    assert entries
    assert all(batches[entry["offset"]] == entry["position"] for entry in entries)
    times = run.json("segment", "dump", logs[1].with_suffix(".timeindex"))
    assert times[-1] == {"entry": len(times) - 1, "timestamp": 1357034400000 + 99 * 60_000, "offset": 99}
    assert run.json("segment", "dump", logs[0].parent / "leader-epoch-checkpoint") == [{"epoch": 0, "start_offset": 0}]
    assert "is no .log" in run("segment", "dump", logs[0].parent / "partition.metadata", code=2).stderr


def test_dump_needs_no_directory_and_goes_on_behind_damage(run, logs, tmp_path):
    copy = tmp_path / "copied.log"
    shutil.copy(logs[0], copy)
    second = run.json("segment", "dump", copy)[1]["position"]
    flip(copy, second + 80)
    lines = run.json("segment", "dump", copy, code=6)
    assert lines[1]["damage"]["position"] == second
    assert lines[2]["base_offset"] == 20
    assert "DAMAGED: offsets 10 to 19" in run("segment", "dump", copy, code=6).stdout


def test_verify_of_sound_files(run, logs):
    result = run("segment", "verify", "orders", "plain", logs[0])
    assert all(line.startswith("ok") for line in result.stdout.splitlines())
    assert "all sound" in result.stderr
    assert run("segment", "verify", "-q", "plain").stdout == ""
    results = run.json("segment", "verify", "plain")
    assert sum(result["records"] for result in results) == 100


@pytest.mark.parametrize("position", [0, 3, 7, 8, 11, 14, 16, 17, 21, 25, 30, 50, 57, 60, 61, 70, 150])
def test_verify_names_the_range_of_every_flipped_byte(run, logs, position):
    batches = run.json("segment", "dump", logs[0])
    assert len(batches) >= 5
    flip(logs[0], batches[2]["position"] + position, 0x40)
    first, *rest = run.json("segment", "verify", "plain", code=1)
    assert all(result["sound"] for result in rest)
    (damage,) = first["damages"]
    assert (damage["position"], damage["end_position"]) == (batches[2]["position"], batches[3]["position"])
    assert (damage["first_offset"], damage["end_offset"]) == (20, 30)
    assert not damage["torn_tail"]
    assert first["index_faults"] == []


@pytest.mark.parametrize("mask", [0x01, 0x20])
def test_verify_blames_a_batch_whose_offset_or_epoch_was_raised(run, logs, mask):
    batches = run.json("segment", "dump", logs[0])
    for position in (7, 15):  # base offset, leader epoch: not covered by the CRC
        flip(logs[0], batches[2]["position"] + position, mask)
        (damage,) = run.json("segment", "verify", logs[0], code=1)[0]["damages"]
        assert (damage["position"], damage["first_offset"]) == (batches[2]["position"], 20), position
        flip(logs[0], batches[2]["position"] + position, mask)


def test_verify_finds_several_ranges(run, logs):
    batches = run.json("segment", "dump", logs[0])
    for number in (0, 3):
        flip(logs[0], batches[number]["position"] + 65)
    result = run("segment", "verify", logs[0], code=1)
    assert "offsets 0 to 9, " in result.stdout
    assert "offsets 30 to 39, " in result.stdout
    assert "1 damaged" in result.stderr


@pytest.mark.parametrize("kept", [8, 30, 61, 100])  # fewer are zeros, as of a base offset
def test_verify_of_a_torn_tail(run, logs, kept):
    last = run.json("segment", "dump", logs[-1])[-1]
    os.truncate(logs[-1], last["position"] + kept)
    result = run.json("segment", "verify", "plain", code=1)[len(logs) - 1]
    (damage,) = result["damages"]
    assert damage["torn_tail"]
    assert (damage["first_offset"], damage["end_offset"]) == (last["base_offset"], None)
    assert "unfinished write" in run("segment", "verify", "plain", code=1).stdout


def test_zeros_ahead_of_the_end_are_no_damage(run, logs):
    with logs[-1].open("ab") as file:
        file.write(bytes(5000))
    assert "offsets 80 to 99, 20 records" in run("segment", "verify", logs[-1]).stdout
    with logs[-1].open("ab") as file:
        file.write(b"x")
    assert "offsets 100 and on" in run("segment", "verify", logs[-1], code=1).stdout


def test_damage_inside_a_value_that_holds_a_batch(run, directory, tmp_path):
    inner = (directory / "plain-0" / "00000000000000000000.log").read_bytes()[:200]
    with logstore.open(directory) as broker:
        outer = broker.create_topic("outer")
        for value in (b"a", inner + b"x" * 50, b"b"):
            outer.append(value)
    log = directory / "outer-0" / "00000000000000000000.log"
    second, third = (batch["position"] for batch in run.json("segment", "dump", log)[1:])
    flip(log, third - 2)
    (damage,) = run.json("segment", "verify", log, code=1)[0]["damages"]
    assert (damage["position"], damage["end_position"]) == (second, third)


@pytest.mark.parametrize(
    ("suffix", "position", "reason"),
    [
        (".index", 3, "gives offset"),
        (".index", 7, "where no batch starts"),
        (".timeindex", 7, "the largest up to there is"),
        (".timeindex", 11, "the largest up to there is"),
    ],
)
def test_verify_compares_the_indexes(run, logs, suffix, position, reason):
    index = logs[0].with_suffix(suffix)
    flip(index, position)
    result = run("segment", "verify", "plain", code=1).stdout
    assert f"{index.name}: " in result
    assert reason in result
    assert "derived again" in result


def test_verify_of_a_cut_index_and_epochs(run, logs):
    index = logs[0].with_suffix(".index")
    index.write_bytes(index.read_bytes()[:-1])
    (logs[0].parent / "leader-epoch-checkpoint").write_text("0\n2\n0 0\n")
    result = run("segment", "verify", "plain", code=1)
    assert "no multiple of 8" in result.stdout
    assert "number of entries" in result.stdout
    assert "2 damaged" in result.stderr


def test_verify_checks_offsets_against_the_next_segment(run, logs):
    shutil.copy(logs[1], logs[0].with_name("00000000000000000005.log"))
    assert "belongs to the next segment" in run("segment", "verify", logs[0], code=1).stdout


def test_what_is_no_target(run, directory, logs):
    assert "there is no topic 'nothing'" in run("segment", "verify", "nothing", code=3).stderr
    assert "no such file" in run("segment", "verify", "a/b.log", code=2).stderr
    assert "has no .log files" in run("segment", "verify", str(directory), code=2).stderr
    assert "together with theirs" in run("segment", "verify", logs[0].with_suffix(".index"), code=2).stderr
    assert "no partition 3" in run("segment", "verify", "orders", "-p", "3", code=3).stderr


@pytest.mark.parametrize("directory", KAFKA_DIRECTORIES, ids=lambda path: path.parent.name)
def test_what_a_kafka_broker_wrote_is_sound(run, directory):
    pytest.importorskip("cramjam")
    partitions = [path for path in sorted(directory.iterdir()) if path.is_dir() and next(path.glob("*.log"), None)]
    partitions = [path for path in partitions if "." not in path.name.rpartition("-")[0].replace("rolled.by", "")]
    assert len(partitions) > 10
    result = run("segment", "verify", *partitions)
    assert "all sound" in result.stderr
