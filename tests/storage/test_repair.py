"""Repair: afterwards the log is sound and writable, what could be read still can, and the report names all the rest."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from random import Random

import pytest
from crash_states import segment_paths, stored_batches
from crashing_calls import CrashError, crash_before

from logstore.errors import CorruptDataError, UnsupportedFormatError
from logstore.storage import repair as repair_module
from logstore.storage.checkpoint import CheckpointFile
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.repair import carry_out, finish_repair, rebuild_indexes
from logstore.storage.repair_plan import plan_repair
from logstore.storage.verification import verify_partition

COUNT = 120
SETTINGS = {"segment_bytes": 1024, "index_interval_bytes": 100}
BASE_MS = 1_357_034_400_000
STRIDE = int(os.environ.get("LOGSTORE_REPAIR_STRIDE", "4"))


def value_of(offset: int) -> bytes:
    return b"value-%d" % offset


def make(parent: Path) -> Path:
    with Log(parent / "t-0", TopicConfig(**SETTINGS), durability="appended") as log:
        for start in range(0, COUNT, 5):
            log.append_many(
                [value_of(offset) for offset in range(start, start + 5)],
                timestamps=[BASE_MS + offset * 1000 for offset in range(start, start + 5)],
            )
        assert len(log.segments) >= 4
    return parent / "t-0"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make(tmp_path)


def read_over_damage(directory: Path) -> set[int]:
    """What a reader gets at all, batch by batch, wherever its file stands: all that CRC and offset vouch for."""
    found: set[int] = set()
    paths = segment_paths(directory)
    for number, path in enumerate(paths):
        bound = int(paths[number + 1].stem) if number + 1 < len(paths) else 10**9
        with Log(directory, read_only=True) as log:
            offset = max(int(path.stem), log.log_start_offset)
            while offset < min(bound, log.log_end_offset):
                try:
                    batch = log.cursor(offset).next_batch()
                except (CorruptDataError, UnsupportedFormatError):
                    offset += 1
                    continue
                if batch is None:
                    break
                records = [record for record in batch if record.offset >= offset]
                for record in records:
                    if record.value == value_of(record.offset):
                        found.add(record.offset)
                offset = batch.last_offset + 1
    return found


def check_repaired(directory: Path, lost: set[int], readable_before: set[int], *, everything: range = range(COUNT)) -> None:
    assert verify_partition(str(directory)).is_sound
    left: dict[int, bytes] = {}
    with Log(directory, TopicConfig(**SETTINGS), durability="appended") as log:
        assert log.damage is None
        assert log.is_writable
        for record in log.read():
            assert record.offset not in left
            left[record.offset] = record.value
        end = log.log_end_offset
        assert end >= everything.stop
        new = log.append(b"after the repair")
        assert new == end
        (last,) = log.read(new)
        assert last.value == b"after the repair"
    assert all(value == value_of(offset) for offset, value in left.items())
    assert readable_before <= left.keys(), "repair lost what could be read"
    assert set(left) == set(everything) - lost, "the report names what is lost, and nothing else"
    assert verify_partition(str(directory)).is_sound


def repair(directory: Path) -> set[int]:
    """Repairs; the offsets that the written report calls lost."""
    plan = plan_repair(str(directory))
    assert not plan.is_empty
    result = carry_out(plan, index_interval_bytes=100)
    assert result.is_sound
    report = json.loads((Path(result.evidence) / "report.json").read_text())
    assert report["state"] == "done"
    assert (Path(result.evidence) / "report.txt").read_text().startswith("t-0: repaired")
    assert not any(path.suffix == ".repaired" or path.name == "logstore.repair" for path in directory.iterdir())
    return {offset for found in report["lost"] for offset in range(found["first_offset"], found["end_offset"])}


def check_damage(directory: Path, *, loses: set[int] | None = None) -> None:
    originals = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    readable = read_over_damage(directory)
    lost = repair(directory)
    if loses is not None:
        assert lost == loses
    (evidence,) = (directory / "logstore.evidence").iterdir()
    for path in evidence.iterdir():
        if path.suffix in (".log", ".index", ".timeindex"):
            assert path.read_bytes() == originals[path.name], "the evidence is what was there"
    for name, content in originals.items():
        if name.endswith(".log") and not (directory / name).exists():
            assert (evidence / name).read_bytes() == content
    check_repaired(directory, lost, readable)


def offsets(path: Path, number: int) -> set[int]:
    batch = stored_batches(path)[number]
    return set(range(batch.base_offset, batch.last_offset + 1))


def all_offsets(path: Path) -> set[int]:
    return {offset for number in range(len(stored_batches(path))) for offset in offsets(path, number)}


def flip(path: Path, position: int, mask: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def test_nothing_to_repair(directory: Path) -> None:
    assert plan_repair(str(directory)).is_empty


@pytest.mark.parametrize("number", [0, 1, -1])
@pytest.mark.parametrize("batch", [0, 1, -1])
def test_a_damaged_batch(number: int, batch: int, directory: Path) -> None:
    path = segment_paths(directory)[number]
    lost = offsets(path, batch)
    flip(path, stored_batches(path)[batch].position + 80)
    check_damage(directory, loses=lost)


@pytest.mark.parametrize("at", range(17))
@pytest.mark.parametrize("number", [1, -1])
@pytest.mark.fault(12, "a bit flipped where no CRC is")
def test_what_no_crc_covers_is_mended(at: int, number: int, directory: Path) -> None:
    """Base offset, length, epoch and magic follow from what stands around, and the CRC says that the rest is right."""
    path = segment_paths(directory)[number]
    original = path.read_bytes()
    flip(path, stored_batches(path)[1].position + at)
    check_damage(directory, loses=set())
    if not 8 + 4 <= at < 16:  # (an epoch that makes sense by itself is accepted as it is)
        assert path.read_bytes()[: len(original)] == original


@pytest.mark.parametrize("batch", [1, 2, -2, -1])
def test_a_lowered_base_offset_is_not_the_fault_of_the_batch_before(batch: int, directory: Path) -> None:
    path = segment_paths(directory)[0]
    original = path.read_bytes()
    found = stored_batches(path)[batch]
    for offset in range(found.base_offset):
        content = bytearray(original)
        content[found.position + 7] = offset
        path.write_bytes(content)
        plan = plan_repair(str(directory))
        assert [damage.first_offset for damage in plan.verification.damages] == [found.base_offset]
        assert plan.lost == []
    check_damage(directory, loses=set())
    assert path.read_bytes() == original


@pytest.mark.parametrize("number", [0, 2, -1])
def test_a_cut_file(number: int, directory: Path) -> None:
    path = segment_paths(directory)[number]
    batches = stored_batches(path)
    path.write_bytes(path.read_bytes()[: batches[1].position + 30])
    check_damage(directory, loses=set(range(batches[1].base_offset, batches[-1].last_offset + 1)))


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_missing_file(number: int, directory: Path) -> None:
    path = segment_paths(directory)[number]
    lost = all_offsets(path)
    path.unlink()
    check_damage(directory, loses=lost)


def test_no_file_left(directory: Path) -> None:
    for path in segment_paths(directory):
        path.unlink()
    check_damage(directory, loses=set(range(COUNT)))


def test_swapped_files_go_back(directory: Path) -> None:
    first, second = segment_paths(directory)[1:3]
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    check_damage(directory, loses=set())
    assert (first.read_bytes(), second.read_bytes()) == contents


def test_a_renamed_file_goes_back(directory: Path) -> None:
    path = segment_paths(directory)[1]
    content = path.read_bytes()
    path.rename(directory / f"{7:020d}.log")
    check_damage(directory, loses=set())
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", [3, 40, 5000])
def test_a_copy_under_another_name(name: int, directory: Path) -> None:
    source = segment_paths(directory)[0]
    shutil.copy(source, directory / f"{name:020d}.log")
    check_damage(directory, loses=set())
    assert not (directory / f"{name:020d}.log").exists()


def test_a_file_over_another(directory: Path) -> None:
    first, second = segment_paths(directory)[:2]
    lost = all_offsets(second)
    second.write_bytes(first.read_bytes())
    check_damage(directory, loses=lost)


def test_batches_that_stand_in_two_files(directory: Path) -> None:
    first, second = segment_paths(directory)[:2]
    first.write_bytes(first.read_bytes() + second.read_bytes())
    check_damage(directory, loses=set())
    second_batches = stored_batches(second)
    assert second_batches


def test_batches_that_are_only_left_behind_the_next_segments_start(directory: Path) -> None:
    first, second = segment_paths(directory)[:2]
    content = second.read_bytes()
    first.write_bytes(first.read_bytes() + content)
    second.write_bytes(content[stored_batches(second)[2].position :])
    check_damage(directory, loses=set())
    assert second.read_bytes() == content


@pytest.mark.parametrize("name", ["first.index", "first.timeindex", "logstore.checkpoint", "logstore.digests",
                                  "leader-epoch-checkpoint", "partition.metadata"])
@pytest.mark.parametrize("how", ["flip", "cut", "garbage"])
def test_files_beside_the_records(name: str, how: str, directory: Path) -> None:
    path = directory / name.replace("first", segment_paths(directory)[0].stem)
    content = path.read_bytes()
    if how == "flip":
        path.write_bytes(bytes([content[0] ^ 0x40]) + content[1:])
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2 + 1])
    else:
        path.write_bytes(b"\xff" * len(content))
    if verify_partition(str(directory)).is_sound:
        pytest.skip("nothing to repair: what this damage leaves says the same")
    check_damage(directory, loses=set())


def test_sound_records_that_are_not_those_once_written_are_kept_and_named(directory: Path) -> None:
    path = segment_paths(directory)[1]
    content = bytearray(path.read_bytes())
    for batch in stored_batches(path):
        content[batch.position + 15] = 1  # as under another leader: nothing in the format contradicts
    for later in segment_paths(directory)[2:]:
        data = bytearray(later.read_bytes())
        for batch in stored_batches(later):
            data[batch.position + 15] = 1
        later.write_bytes(data)
    path.write_bytes(content)
    plan = plan_repair(str(directory))
    assert plan.accepted[0].first_offset == int(path.stem)
    check_damage(directory, loses=set())
    assert path.read_bytes() == content


def test_damage_of_many_kinds_at_once(tmp_path: Path) -> None:
    for seed in range(int(os.environ.get("LOGSTORE_REPAIR_SEEDS", "12"))):
        random = Random(seed)
        directory = make(tmp_path / str(seed))
        for _ in range(random.randint(1, 4)):
            paths = segment_paths(directory)
            path = random.choice(paths)
            chance = random.random()
            if chance < 0.5 and path.stat().st_size:
                flip(path, random.randrange(path.stat().st_size), 1 << random.randrange(8))
            elif chance < 0.65:
                path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size + 1)])
            elif chance < 0.75 and len(paths) > 1:
                path.unlink()
            elif chance < 0.85 and len(paths) > 1:
                other = random.choice(paths)
                contents = path.read_bytes(), other.read_bytes()
                path.write_bytes(contents[1])
                other.write_bytes(contents[0])
            else:
                at = random.randrange(path.stat().st_size + 1)
                path.write_bytes(path.read_bytes()[:at] + random.randbytes(300) + path.read_bytes()[at:])
        try:
            if verify_partition(str(directory)).is_sound:
                continue
            check_damage(directory)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.fault(36, "files of a newer version")
def test_a_newer_versions_checkpoint_is_left_alone(directory: Path) -> None:
    from logstore._native.checksum import crc32c

    path = directory / "logstore.checkpoint"
    content = bytearray(path.read_bytes())
    for slot in (0, 4096):
        content[slot + 5] = 9
        content[slot + 56 : slot + 60] = crc32c(bytes(content[slot : slot + 56])).to_bytes(4, "big")
    path.write_bytes(content)
    flip(segment_paths(directory)[0], 70)
    with pytest.raises(UnsupportedFormatError):
        plan_repair(str(directory))
    assert path.read_bytes() == content


def test_the_log_start_stays_where_it_was(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with Log(directory, TopicConfig(**SETTINGS)) as log:
        log.advance_log_start_offset(42)
    path = segment_paths(directory)[-1]
    lost = offsets(path, 0)
    flip(path, 70)
    assert repair(directory) == lost
    with Log(directory, TopicConfig(**SETTINGS)) as log:
        assert log.log_start_offset == 42
    check_repaired(directory, lost | set(range(42)), set())


@pytest.mark.fault(7, "fsync fails")
def test_after_a_failed_fsync_what_was_not_on_disk_is_written_again(directory: Path) -> None:
    file = CheckpointFile(str(directory / "logstore.checkpoint"))
    state = file.read()
    assert state is not None
    file.replace(state._replace(sync_failed=True, is_clean=False))
    flip(segment_paths(directory)[0], 70)
    before = segment_paths(directory)[-1].stat().st_ino
    check_damage(directory)
    assert segment_paths(directory)[-1].stat().st_ino != before


def test_indexes_come_back_as_they_were(directory: Path) -> None:
    indexes = {path: path.read_bytes() for path in directory.iterdir() if path.suffix in (".index", ".timeindex")}
    for path in indexes:
        path.write_bytes(b"nonsense")
    rebuild_indexes(str(directory), [int(path.stem) for path in segment_paths(directory)], 100)
    assert {path: path.read_bytes() for path in indexes} == indexes


# ---- cut short ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_open", [False, True])
@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_a_crash_at_every_file_operation(by_open: bool, directory: Path, tmp_path: Path) -> None:
    first, second, third = segment_paths(directory)[:3]
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    flip(third, stored_batches(third)[1].position + 75)
    lost = offsets(third, 1)
    readable = read_over_damage(directory)
    number = 2 * by_open
    while True:
        copy = tmp_path / str(number) / "t-0"
        shutil.copytree(directory, copy)
        plan = plan_repair(str(copy))
        try:
            with crash_before(number):
                carry_out(plan, index_interval_bytes=100)
            break
        except CrashError:
            pass
        has_begun = (copy / "logstore.repair").exists()
        if not has_begun and not verify_partition(str(copy)).is_sound:
            assert verify_partition(str(copy)).damages, "nothing has changed yet"
            carry_out(plan_repair(str(copy)), index_interval_bytes=100)
        elif by_open:
            with Log(copy, TopicConfig(**SETTINGS)) as log:
                assert log.damage is None
        else:
            finish_repair(str(copy))
        assert not (copy / "logstore.repair").exists()
        check_repaired(copy, lost, readable)
        shutil.rmtree(copy)
        number += STRIDE
    assert number > 30


@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_a_crash_while_the_repair_is_finished(directory: Path, tmp_path: Path) -> None:
    path = segment_paths(directory)[1]
    lost = offsets(path, 1)
    flip(path, stored_batches(path)[1].position + 75)
    readable = read_over_damage(directory)
    begun = tmp_path / "begun" / "t-0"
    shutil.copytree(directory, begun)
    finish = repair_module.finish_repair
    repair_module.finish_repair = lambda _: (_ for _ in ()).throw(CrashError)  # type: ignore[assignment]
    try:
        carry_out(plan_repair(str(begun)), index_interval_bytes=100)
    except CrashError:
        pass
    finally:
        repair_module.finish_repair = finish
    number = 0
    while True:
        copy = tmp_path / str(number) / "t-0"
        shutil.copytree(begun, copy)
        try:
            with crash_before(number):
                finish_repair(str(copy))
            break
        except CrashError:
            pass
        for _ in range(2):  # and once more in between
            with contextlib.suppress(CrashError), crash_before(number % 5):
                finish_repair(str(copy))
        finish_repair(str(copy))
        check_repaired(copy, lost, readable)
        shutil.rmtree(copy)
        number += STRIDE
    assert number > 10


def test_a_damaged_journal_is_not_followed(directory: Path) -> None:
    (directory / "logstore.repair").write_bytes(b"00000000\n{}")
    with pytest.raises(CorruptDataError, match="move this file away"):
        finish_repair(str(directory))
