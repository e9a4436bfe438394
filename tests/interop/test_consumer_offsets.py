"""Kafka reads the offsets and groups that logstore has written, and the other way round.

A broker takes over a partition of ``__consumer_offsets`` written here, its own tool describes the groups, one of its groups
commits more, and logstore reads all of it from the broker's directory.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import kafka_jars
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.structs import OffsetAndMetadata as KafkaOffset
from kafka_broker import KafkaBroker
from kafka_reads import DUMP_TOOL, TIMEOUT_S

import logstore
from logstore import OffsetAndMetadata, TopicPartition
from logstore.broker_api import JoinGroupRequest, SyncGroupRequest
from logstore.consumer_protocol import Assignment, Subscription, encode_assignment, encode_subscription

ORDERS = [TopicPartition("orders", number) for number in range(2)]
GROUP_TOOL = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"


@dataclass
class Exchange:
    """What was seen."""

    decoded: list[tuple[dict, dict | None]]
    described: dict[tuple[str, str, str], str]
    states: dict[str, str]
    data_dir: Path


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Exchange:
    work = tmp_path_factory.mktemp("offsets")
    ours = work / "ours"
    _write_ours(ours)
    decoded = _decoded(ours / "__consumer_offsets-0" / "00000000000000000000.log")

    data_dir = work / "kafka"
    data_dir.mkdir()
    broker = KafkaBroker(work, data_dir, {"log.cleaner.enable": "false"})
    with broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics([NewTopic("orders", 2, 1)])
        admin.close()
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
        for number in range(2):
            for _ in range(10):
                producer.send("orders", value=b"x", partition=number)
        producer.close()
        _commit(broker.bootstrap, "warm-up", {0: 1})  # has the broker make the topic
    target = data_dir / "__consumer_offsets-0"
    for path in target.iterdir():
        if path.name != "partition.metadata":
            path.unlink()
    for path in (ours / "__consumer_offsets-0").iterdir():
        if path.name != "partition.metadata":
            shutil.copyfile(path, target / path.name)
    with broker:
        printed = _tool(broker.bootstrap, "--describe", "--all-groups", "--offsets")
        listed = _tool(broker.bootstrap, "--describe", "--all-groups", "--state")
        _commit(broker.bootstrap, "kafkas-own", {0: 8, 1: 9}, "by Kafka")
        _commit(broker.bootstrap, "simple", {1: 6})
    return Exchange(decoded, _offsets_in(printed), _states_in(listed), data_dir)


def _write_ours(directory: Path) -> None:
    with logstore.open(directory) as broker:
        broker.create_topic("orders", partitions=2)
        coordinator = broker.coordinator
        coordinator.commit_offsets("simple", {ORDERS[0]: OffsetAndMetadata(3, "note", 0)})
        coordinator.commit_offsets("simple", {ORDERS[0]: OffsetAndMetadata(4, "grün", 0), ORDERS[1]: OffsetAndMetadata(5)})
        coordinator.commit_offsets("deleted", {ORDERS[0]: OffsetAndMetadata(1)})
        coordinator.delete_group("deleted")
        answers: list = []
        subscription = encode_subscription(Subscription(("orders",)))
        coordinator.join_group(
            JoinGroupRequest("team", "", None, "one", "/127.0.0.1", 45_000, 60_000, "consumer", (("range", subscription),)),
            answers.append,
        )
        member_id, generation = answers[0].member_id, answers[0].generation
        assignment = encode_assignment(Assignment(tuple(ORDERS)))
        coordinator.sync_group(
            SyncGroupRequest("team", generation, member_id, None, {member_id: assignment}), answers.append
        )
        assert answers[1].error is None
        coordinator.commit_offsets(
            "team", {ORDERS[1]: OffsetAndMetadata(7)}, generation=generation, member_id=member_id
        )
        coordinator.leave_group("team", member_id)


def _decoded(path: Path) -> list[tuple[dict, dict | None]]:
    """Keys and values as the tool Kafka ships prints them."""
    done = subprocess.run(
        kafka_jars.java_command(DUMP_TOOL, "--offsets-decoder", "--files", str(path)),
        capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[:3000]
    records = re.findall(r"^\| offset: .*? key: (\{.*\}) payload: (.*)$", done.stdout, re.MULTILINE)
    assert "isvalid: false" not in done.stdout
    return [(json.loads(key), json.loads(value) if value.startswith("{") else None) for key, value in records]


def _tool(bootstrap: str, *options: str) -> str:
    done = subprocess.run(
        kafka_jars.java_command(GROUP_TOOL, "--bootstrap-server", bootstrap, *options),
        capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[:3000]
    return done.stdout


def _offsets_in(printed: str) -> dict[tuple[str, str, str], str]:
    """Current offset and lag by group, topic and partition."""
    found = {}
    for line in printed.splitlines():
        words = line.split()
        if len(words) > 5 and words[1] == "orders":
            numbers = [word for word in words[3:6] if word.isdigit()]
            found[words[0], words[1], words[2]] = " ".join(numbers)
    return found


def _states_in(printed: str) -> dict[str, str]:
    return {
        line.split()[0]: next(word for word in line.split() if word in ("Empty", "Stable"))
        for line in printed.splitlines()
        if re.search(r"\b(Empty|Stable)\b", line)
    }


def _commit(bootstrap: str, group: str, offsets: dict[int, int], metadata: str = "") -> None:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    consumer.assign([KafkaPartition("orders", number) for number in offsets])
    consumer.commit({
        KafkaPartition("orders", number): KafkaOffset(offset, metadata, -1) for number, offset in offsets.items()
    })
    consumer.close()


def test_the_tool_of_kafka_decodes_every_record(exchange: Exchange) -> None:
    offsets = [
        (key["data"]["group"], key["data"]["partition"], value and (value["data"]["offset"], value["data"]["metadata"]))
        for key, value in exchange.decoded
        if "topic" in key["data"]
    ]
    assert offsets == [
        ("simple", 0, (3, "note")), ("simple", 0, (4, "grün")), ("simple", 1, (5, "")),
        ("deleted", 0, (1, "")), ("deleted", 0, None), ("team", 1, (7, "")),
    ]
    groups = [(key["data"]["group"], value) for key, value in exchange.decoded if "topic" not in key["data"]]
    assert [group for group, _ in groups] == ["deleted", "team", "team"]
    assert groups[0][1] is None
    stable, empty = groups[1][1]["data"], groups[2][1]["data"]
    assert (stable["generation"], stable["protocol"], len(stable["members"])) == (1, "range", 1)
    assert (empty["generation"], empty["protocol"], empty["members"]) == (2, None, [])


def test_a_broker_that_takes_over_shows_our_offsets(exchange: Exchange) -> None:
    assert exchange.described == {
        ("simple", "orders", "0"): "4 10 6",
        ("simple", "orders", "1"): "5 10 5",
        ("team", "orders", "1"): "7 10 3",
    }
    assert exchange.states == {"simple": "Empty", "team": "Empty"}


def test_logstore_reads_what_the_broker_has_committed(exchange: Exchange) -> None:
    with logstore.open(exchange.data_dir, read_only=True) as broker:
        committed = {each.group: broker.coordinator.committed_offsets(each.group) for each in broker.groups()}
        assert {group: {place: each.offset for place, each in offsets.items()} for group, offsets in committed.items()} == {
            "simple": {ORDERS[0]: 4, ORDERS[1]: 6},
            "team": {ORDERS[1]: 7},
            "kafkas-own": {ORDERS[0]: 8, ORDERS[1]: 9},
        }
        assert committed["kafkas-own"][ORDERS[0]].metadata == "by Kafka"
        assert broker.describe_group("team").generation == 2
