import json

import pytest

import logstore
from logstore.storage.directory_lock import DirectoryLock


def flip(path, position, mask=1):
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


@pytest.fixture
def logs(directory):
    return sorted((directory / "plain-0").glob("*.log"))


@pytest.fixture
def damaged(run, directory, logs):
    batches = run.json("segment", "dump", logs[0])
    flip(logs[0], batches[1]["position"] + 70)
    return directory


def test_nothing_to_do(run):
    assert "all sound" in run("repair").stderr
    assert "all sound" in run("repair", "--yes", "plain").stderr


def test_the_plan_comes_first_and_changes_nothing(run, damaged, logs):
    before = {path: path.read_bytes() for path in damaged.rglob("*") if path.is_file() and path.name != ".lock"}
    for arguments in ([], ["--dry-run"], ["--dry-run", "--yes"]):
        result = run("repair", *arguments, code=1)
        assert "can't be brought back: 10 offsets" in result.stdout
        assert "offsets 10 to 19, from about 2013-01-01 10:09:00 to 2013-01-01 10:20:00" in result.stdout
        assert f"written anew without what is damaged: {logs[0].name}" in result.stdout
        assert "nothing was changed" in result.stderr
    assert "--yes" in run("repair", code=1).stderr
    after = {path: path.read_bytes() for path in damaged.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_it_repairs(run, damaged, logs):
    with logstore.open(damaged) as broker:
        with pytest.raises(logstore.CorruptDataError):
            list(broker.topic("plain").read())
    plan = run.json("repair", "plain", "--yes")
    assert plan[0]["lost"][0]["first_offset"] == 10
    (evidence,) = (damaged / "plain-0" / "logstore.evidence").iterdir()
    report = json.loads((evidence / "report.json").read_text())
    assert (report["state"], report["lost_offsets"]) == ("done", 10)
    assert "offsets 10 to 19" in (evidence / "report.txt").read_text()
    assert (evidence / logs[0].name).exists()
    assert "all sound" in run("verify", "--deep").stderr
    with logstore.open(damaged) as broker:
        plain = broker.topic("plain")
        assert [record.offset for record in plain.read()] == [*range(10), *range(20, 100)]
        assert plain.append(b"new") == 100


def test_only_where_nobody_writes(run, damaged):
    lock = DirectoryLock(str(damaged))
    try:
        assert "is open for writing" in run("repair", "--yes", code=4).stderr
        assert "is open for writing" in run("index", "rebuild", code=4).stderr
        assert "can't be brought back: 10 offsets" in run("repair", "--dry-run", code=1).stdout
    finally:
        lock.release()


def test_index_rebuild(run, directory, logs):
    indexes = {path: path.read_bytes() for path in directory.rglob("*.*index")}
    assert len(indexes) > 6
    for path in indexes:
        path.write_bytes(b"?")
    run("verify", code=1)
    assert f"{len(indexes) // 2} segments" in run("index", "rebuild").stderr
    assert {path: path.read_bytes() for path in indexes} == indexes
    assert "all sound" in run("verify", "--deep").stderr
