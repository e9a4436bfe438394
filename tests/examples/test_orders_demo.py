"""The orders example: it runs, its replicas die and come back, and its check would notice a lost order."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import logstore

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `examples` is a folder of the checkout

from examples.orders.check import check_service  # noqa: E402
from examples.orders.orders import Order  # noqa: E402
from examples.orders.scenario import SERVICES, Scenario  # noqa: E402


def in_process(directory, *, rate=300.0, seconds=4.0):
    with logstore.open(directory, group_min_session_timeout_ms="100ms", durability="appended") as broker:
        scenario = Scenario(broker, rate, seconds, 1, lambda _: None)
        return scenario, scenario.run()


# A replica that is killed says goodbye to nobody: that is the point.
@pytest.mark.filterwarnings("ignore:Consumer.*was not closed:ResourceWarning")
def test_every_order_is_handled_by_every_service(tmp_path):
    scenario, checks = in_process(tmp_path)
    assert scenario.orders.placed > 300
    assert scenario.orders.failed == 0
    assert [check.service for check in checks] == list(SERVICES)
    for check in checks:
        assert check.missing == []
        assert check.out_of_order == []
        assert sum(check.by_partition.values()) == scenario.orders.placed + check.repeated
    payment = checks[list(SERVICES).index("payment")]
    assert {"payment-1", "payment-2", "payment-3"} == set(payment.by_replica), "all three replicas had work"
    notification = checks[list(SERVICES).index("notification")]
    assert set(notification.by_replica) == {"notification-1", "notification-2"}, "it went on after its pause"
    assert any("killed" in event for _, event in scenario.events)


@pytest.fixture
def small_run(tmp_path):
    with logstore.open(tmp_path, durability="appended") as broker:
        orders = broker.create_topic("orders", partitions=3)
        done = broker.create_topic("billing.done", partitions=3)
        for number in range(20):
            order = Order(number, "ann" if number % 2 else "bob", "tea", 1, 450)
            orders.append(order.value, key=order.key)
        yield broker, done


def handle(done, number, replica="billing-1"):
    key = b"ann" if number % 2 else b"bob"
    done.append(json.dumps({"number": number, "replica": replica, "partition": 0, "offset": number}).encode(), key=key)


def test_check_passes_where_orders_are_repeated(small_run):
    broker, done = small_run
    for number in [*range(12), *range(8, 20)]:
        handle(done, number)
    check = check_service(broker, "orders", "billing")
    assert check.passed
    assert check.repeated == 4
    assert check.by_replica == {"billing-1": 24}


def test_check_names_an_order_that_was_never_handled(small_run):
    broker, done = small_run
    for number in range(20):
        if number != 7:
            handle(done, number)
    check = check_service(broker, "orders", "billing")
    assert not check.passed
    assert check.missing == [7]


def test_check_names_an_order_handled_after_a_later_one(small_run):
    broker, done = small_run
    for number in [0, 1, 2, 5, 4, 3, *range(6, 20)]:
        handle(done, number)
    check = check_service(broker, "orders", "billing")
    assert not check.passed
    assert check.out_of_order == [3]


def test_from_the_command_line(tmp_path):
    if importlib.util.find_spec("logstore.demo") is not None:
        command = [sys.executable, "-m", "logstore", "-d", str(tmp_path / "data"), "--json", "demo"]
    else:  # not installed: built in place
        command = [sys.executable, "-m", "examples.orders", "--directory", str(tmp_path / "data"), "--json"]
    done = subprocess.run(
        [*command, "--rate", "200", "--seconds", "2"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["placed"] > 100
    assert all(service["passed"] for service in outcome["services"])
    assert "killed" in done.stderr
    with logstore.open(tmp_path / "data", read_only=True) as broker:
        assert sum(1 for _ in broker.topic("orders").read()) == outcome["placed"]
