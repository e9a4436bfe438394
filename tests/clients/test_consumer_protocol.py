"""The consumer protocol's bytes: by hand, against kafka-python and aiokafka, and with bytes nobody meant."""

from __future__ import annotations

import contextlib

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st
from kafka.coordinator.assignors.sticky.user_data import StickyAssignorUserData
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription

from logstore.consumer_protocol import (
    Assignment,
    Subscription,
    decode_assignment,
    decode_sticky_user_data,
    decode_subscription,
    encode_assignment,
    encode_sticky_user_data,
    encode_subscription,
)
from logstore.errors import CorruptDataError, InvalidRequestError
from logstore.model import TopicPartition

names = st.text(min_size=1, max_size=20)
user_data = st.none() | st.binary(max_size=30)
generations = st.integers(-1, 2**31 - 1)
partitions = st.dictionaries(
    names, st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5, unique=True), max_size=5
).map(lambda found: tuple(TopicPartition(topic, number) for topic, numbers in found.items() for number in numbers))
subscriptions = st.builds(
    Subscription,
    topics=st.lists(names, max_size=5).map(tuple),
    user_data=user_data,
    owned_partitions=partitions,
    generation=generations,
    rack_id=st.none() | names,
    group_instance_id=st.none(),
)


def _grouped(found: tuple[TopicPartition, ...]) -> list[tuple[str, list[int]]]:
    grouped: dict[str, list[int]] = {}
    for topic, number in found:
        grouped.setdefault(topic, []).append(number)
    return list(grouped.items())


def test_subscription_is_these_bytes() -> None:
    data = encode_subscription(Subscription(("ab", "c"), b"\x07", (TopicPartition("c", 1), TopicPartition("c", 3)), 5, "r1"))
    assert data.hex(" ") == (
        "00 03 00 00 00 02 00 02 61 62 00 01 63 00 00 00 01 07 "
        "00 00 00 01 00 01 63 00 00 00 02 00 00 00 01 00 00 00 03 00 00 00 05 00 02 72 31"
    )
    assert encode_subscription(Subscription()).hex() == "0003" + "00000000" + "ffffffff" + "00000000" + "ffffffff" + "ffff"


def test_assignment_is_these_bytes() -> None:
    data = encode_assignment(Assignment((TopicPartition("t", 0), TopicPartition("t", 2))))
    assert data.hex(" ") == "00 03 00 00 00 01 00 01 74 00 00 00 02 00 00 00 00 00 00 00 02 ff ff ff ff"


@given(subscriptions)
def test_subscription_comes_back(subscription: Subscription) -> None:
    assert decode_subscription(encode_subscription(subscription)) == subscription
    assert decode_subscription(encode_subscription(subscription), "i").group_instance_id == "i"


@given(partitions, user_data)
def test_assignment_comes_back(found: tuple[TopicPartition, ...], data: bytes | None) -> None:
    assert decode_assignment(encode_assignment(Assignment(found, data))) == Assignment(found, data)


@given(subscriptions)
def test_kafka_python_reads_a_subscription(subscription: Subscription) -> None:
    theirs = ConsumerProtocolSubscription.decode(encode_subscription(subscription))
    assert (tuple(theirs.topics), theirs.user_data) == (subscription.topics, subscription.user_data)
    assert (theirs.generation_id, theirs.rack_id) == (subscription.generation, subscription.rack_id)
    found = [(owned.topic, list(owned.partitions)) for owned in theirs.owned_partitions]
    assert found == _grouped(subscription.owned_partitions)


@given(subscriptions, st.integers(0, 3))
def test_every_version_of_kafka_python_is_read(subscription: Subscription, version: int) -> None:
    owned = [
        ConsumerProtocolSubscription.TopicPartition(topic=topic, partitions=numbers)
        for topic, numbers in _grouped(subscription.owned_partitions)
    ]
    theirs = ConsumerProtocolSubscription(
        version=version,
        topics=list(subscription.topics),
        user_data=subscription.user_data,
        owned_partitions=owned,
        generation_id=subscription.generation,
        rack_id=subscription.rack_id,
    )
    expected = Subscription(
        subscription.topics,
        subscription.user_data,
        subscription.owned_partitions if version >= 1 else (),
        subscription.generation if version >= 2 else -1,
        subscription.rack_id if version >= 3 else None,
    )
    data = theirs.encode()
    assert data[:2] == version.to_bytes(2, "big")
    assert decode_subscription(data) == expected


@given(partitions, user_data, st.integers(0, 3))
def test_assignments_of_and_for_kafka_python(found: tuple[TopicPartition, ...], data: bytes | None, version: int) -> None:
    theirs = ConsumerProtocolAssignment(version=version, assigned_partitions=_grouped(found), user_data=data)
    assert decode_assignment(theirs.encode()) == Assignment(found, data)
    if version == 3:
        assert theirs.encode() == encode_assignment(Assignment(found, data))


@given(subscriptions)
def test_aiokafka_reads_what_it_knows(subscription: Subscription) -> None:
    theirs = ConsumerProtocolMemberMetadata.decode(encode_subscription(subscription))
    assert (tuple(theirs.subscription), theirs.user_data) == (subscription.topics, subscription.user_data)
    ours = encode_assignment(Assignment(subscription.owned_partitions))
    found = ConsumerProtocolMemberAssignment.decode(ours).partitions()
    assert [tuple(place) for place in found] == [tuple(place) for place in subscription.owned_partitions]
    old = ConsumerProtocolMemberMetadata(0, list(subscription.topics), subscription.user_data).encode()
    assert decode_subscription(old) == Subscription(subscription.topics, subscription.user_data)


@given(partitions, generations)
def test_sticky_user_data_is_kafkas(found: tuple[TopicPartition, ...], generation: int) -> None:
    ours = encode_sticky_user_data(found, generation)
    theirs = StickyAssignorUserData(
        version=1,
        previous_assignment=[
            StickyAssignorUserData.TopicPartition(topic=topic, partitions=numbers) for topic, numbers in _grouped(found)
        ],
        generation=generation,
    )
    assert theirs.encode() == b"\0\1" + ours  # kafka-python prefixes a version that Kafka does not write
    assert decode_sticky_user_data(ours) == (found, generation)
    assert decode_sticky_user_data(ours[:-4]) == (found, -1)
    assert decode_sticky_user_data(None) == decode_sticky_user_data(b"") == ((), -1)


@given(subscriptions, st.integers(4, 0x7FFF), st.binary(max_size=20))
def test_a_newer_version_only_appends(subscription: Subscription, version: int, more: bytes) -> None:
    data = version.to_bytes(2, "big") + encode_subscription(subscription)[2:] + more
    assert decode_subscription(data) == subscription
    assignment = Assignment(subscription.owned_partitions)
    assert decode_assignment(version.to_bytes(2, "big") + encode_assignment(assignment)[2:] + more) == assignment


@given(subscriptions, st.data())
def test_what_breaks_off_is_refused(subscription: Subscription, data: st.DataObject) -> None:
    whole = encode_subscription(subscription)
    with pytest.raises(CorruptDataError, match="subscription"):
        decode_subscription(whole[: data.draw(st.integers(0, len(whole) - 1))])
    whole = encode_assignment(Assignment(subscription.owned_partitions, subscription.user_data))
    with pytest.raises(CorruptDataError, match="assignment"):
        decode_assignment(whole[: data.draw(st.integers(1, len(whole) - 1))])


@given(st.binary(max_size=60), st.integers(0, 4))
def test_any_bytes_end_in_an_answer_or_a_refusal(data: bytes, version: int) -> None:
    for text in (data, version.to_bytes(2, "big") + data):
        for decode in (decode_subscription, decode_assignment, decode_sticky_user_data):
            with contextlib.suppress(CorruptDataError):
                decode(text)


@pytest.mark.parametrize(
    "text",
    [
        "0003 7fffffff",  # two thousand million topics
        "0003 ffffffff",  # a null array
        "0003 00000001 0002 ff61 ffffffff 00000000 ffffffff ffff",  # a name that is no text
        "0003 00000000 fffffffe 00000000 ffffffff ffff",  # bytes of length -2
        "0003 00000000 ffffffff 00000001 0001 61 20000000 ffffffff ffff",  # an array past the end
        "0003 00000000 ffffffff 00000001 0001 61 00000001 ffffffff ffffffff ffff",  # partition -1
        "ffff 00000000 ffffffff",  # version -1
    ],
)
@pytest.mark.fault(28, "hostile lengths and counts")
def test_lies_are_refused(text: str) -> None:
    with pytest.raises(CorruptDataError):
        decode_subscription(bytes.fromhex(text))


def test_no_bytes_are_no_assignment() -> None:
    assert decode_assignment(b"") == Assignment()


def test_a_name_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="too long"):
        encode_subscription(Subscription(("x" * 40_000,)))
