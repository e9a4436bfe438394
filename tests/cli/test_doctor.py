import os
import sys
from types import SimpleNamespace

import pytest

import logstore
from logstore.cli import doctor
from logstore.storage.directory_lock import DirectoryLock, lock_owner


def find(directory, check):
    return next((finding for finding in doctor.examine(str(directory)) if finding.check == check), None)


def test_a_line_each(run, directory):
    findings = list(doctor.examine(str(directory)))
    code = 1 if any(not finding.is_fine for finding in findings) else 0
    result = run("doctor", code=code)
    lines = result.stdout.splitlines()
    assert len(lines) == len(findings)
    assert all(line[:4] in ("OK  ", "WARN") for line in lines)
    rows = run.json("doctor", code=code)
    assert [row["check"] for row in rows] == [finding.check for finding in findings]
    assert all(bool(row["advice"]) != row["is_fine"] for row in rows), "advice where it is needed, and only there"


def test_who_writes(directory):
    assert lock_owner(str(directory)) is None
    assert "nobody" in find(directory, "writer").text
    lock = DirectoryLock(str(directory))
    try:
        assert lock_owner(str(directory)).startswith("this process on ")
        assert "has the directory open" in find(directory, "writer").text
    finally:
        lock.release()
    assert lock_owner(str(directory)) is None
    with logstore.open(directory):  # looking takes nothing away
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: the limit of open files; it is POSIX's")
def test_too_few_open_files(directory, monkeypatch):
    import resource

    assert find(directory, "open files").is_fine is (resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 364)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 4096))
    found = find(directory, "open files")
    assert not found.is_fine
    assert "ulimit -n 364" in found.advice
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 200))
    assert "administrator" in find(directory, "open files").advice


def test_little_space_and_few_inodes(directory, monkeypatch):
    def with_free(blocks, inodes):
        return lambda _: SimpleNamespace(
            f_bavail=blocks, f_blocks=1 << 20, f_frsize=4096, f_favail=inodes, f_files=1_000_000
        )

    monkeypatch.setattr(os, "statvfs", with_free(1 << 19, 900_000))
    assert find(directory, "disk space").is_fine
    assert find(directory, "inodes").is_fine
    monkeypatch.setattr(os, "statvfs", with_free(1 << 10, 10))
    assert "retention" in find(directory, "disk space").advice
    assert "segment.bytes" in find(directory, "inodes").advice


@pytest.mark.parametrize(
    ("mount", "advice"),
    [
        (("ext4", "/", ["rw", "relatime"]), ""),
        (("nfs4", "/data", ["rw"]), "network"),
        (("tmpfs", "/tmp", ["rw"]), "memory"),
        (("ext4", "/", ["ro"]), "read-only"),
        (("ext4", "/", ["nobarrier", "rw"]), "barriers"),
    ],
)
def test_file_systems(mount, advice, directory, monkeypatch):
    monkeypatch.setattr(doctor, "_mount_of", lambda _: mount)
    found = find(directory, "file system")
    assert found.is_fine is (advice == "")
    assert advice in found.advice


def test_the_mount_of_this_directory_is_found(directory):
    found = doctor._mount_of(str(directory))
    if found is None:
        pytest.skip("NOT TESTED: which mount a directory is on; this system does not say")
    assert os.path.ismount(found[1])
    assert str(directory).startswith(found[1])


@pytest.mark.fault(33, "a clock that jumps, timestamps that lie")
def test_a_clock_that_jumped_back(directory):
    assert find(directory, "clock").is_fine
    future = 4_000_000_000
    os.utime(directory / "plain-0", (future, future))
    found = find(directory, "clock")
    assert "files here are from 2096-10-02" in found.text


def test_what_was_verified_and_what_repair_has_left(run, directory):
    assert "not yet" in find(directory, "verified").text
    run("verify", "--deep")
    assert "every sealed segment since 20" in find(directory, "verified").text
    assert find(directory, "repairs") is None
    path = min((directory / "plain-0").glob("*.log"))
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    run("repair", "--yes")
    assert "of evidence" in find(directory, "repairs").text
    (directory / "plain-0" / "logstore.repair").write_text("")
    assert not find(directory, "repairs").is_fine


def test_info_says_when_all_was_verified(run):
    facts = {entry["topic"]: entry for entry in run.json("info")[0]["logs"]}
    assert facts["plain"]["verified_timestamp"] == 0
    assert facts["orders"]["verified_timestamp"] == -1
    assert "never" in run("info", "plain").stdout.splitlines()[1]
    run("verify", "--deep")
    assert {entry["topic"]: entry for entry in run.json("info")[0]["logs"]}["plain"]["verified_timestamp"] > 0
    assert "never" not in run("info", "plain").stdout.splitlines()[1]
