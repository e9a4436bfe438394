import os

import pytest

import logstore
from logstore.storage.segment_digests import SegmentDigests


def flip(path, position, mask=1):
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


@pytest.fixture
def logs(directory):
    return sorted((directory / "plain-0").glob("*.log"))


def test_a_sound_directory(run):
    result = run("verify")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["ok", "orders-0"], ["ok", "orders-1"], ["ok", "orders-2"], ["ok", "plain-0"],
    ]  # fmt: skip
    assert "4 partitions, 130 records" in result.stderr
    assert "no damage seen" in result.stderr
    assert "--deep" in result.stderr
    assert "all sound" in run("verify", "--deep").stderr
    assert run("verify", "-q", "--deep").stdout == ""
    results = run.json("verify", "--deep")
    assert [result["sound"] for result in results] == [True] * 4
    assert results[3]["log_end_offset"] == 100


def test_targets(run):
    assert [line.split()[1] for line in run("verify", "orders:1", "orders:1", "plain").stdout.splitlines()] == [
        "orders-1", "plain-0",
    ]  # fmt: skip
    assert "did you mean 'orders'?" in run("verify", "order", code=3).stderr
    assert "has no partition '7': they are 0 to 2" in run("verify", "orders:7", code=3).stderr


def test_damage_is_named_with_offsets_and_times(run, directory, logs):
    batches = run.json("segment", "dump", logs[0])
    flip(logs[0], batches[1]["position"] + 70)
    assert run("verify").stderr.count("no damage seen") == 1  # the records are not read
    result = run("verify", "--deep", code=1)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("    ")]
    assert "offsets 10 to 19, from about 2013-01-01 10:09:00 to 2013-01-01 10:20:00" in line
    assert f"bytes {batches[1]['position']} to {batches[2]['position'] - 1}" in line
    assert "CRC does not match (expected " in line
    assert "1 damaged range, 10 offsets" in result.stderr
    assert "logstore repair" in result.stderr
    (found,) = run.json("verify", "--deep", "plain", code=1)
    assert (found["ranges"][0]["first_offset"], found["ranges"][0]["end_offset"]) == (10, 20)
    with logstore.open(directory) as broker:  # nothing was changed by looking
        assert broker.topic("plain").partition(0).read(25)


def test_an_index_and_the_topics_file(run, directory, logs):
    flip(logs[0].with_suffix(".timeindex"), 7)
    result = run("verify", code=1)
    assert "timeindex: " in result.stdout
    assert "index rebuild" in result.stdout
    assert "files damaged, no record" in result.stderr
    flip(logs[0].with_suffix(".timeindex"), 7)
    flip(directory / "logstore.topics", 60)
    assert "logstore.topics" in run("verify", code=1).stdout
    assert any(not line["sound"] for line in run.json("verify", code=1))
    flip(directory / "logstore.topics", 60)
    os.rename(directory / "orders-1", directory / "gone")
    assert "orders-1: the partition's directory is missing" in run("verify", code=1).stdout


def test_a_deep_check_of_a_closed_directory_takes_digests(run, directory, logs):
    digests = directory / "plain-0" / "logstore.digests"
    before = SegmentDigests(str(digests.parent)).entries()
    digests.unlink()
    run("verify")
    assert not digests.exists()
    with logstore.open(directory):  # another process has it
        run("verify", "--deep")
        assert not digests.exists()
    assert "took digests of" in run("verify", "--deep").stderr
    after = SegmentDigests(str(digests.parent)).entries()
    sealed = [base for base, digest in before.items() if not digest.is_growing]
    assert [digest._replace(verified_ms=0) for digest in after.values()] == [before[base] for base in sealed]
    assert all(digest.verified_ms > 0 for digest in after.values())
