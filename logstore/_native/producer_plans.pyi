from collections.abc import Iterable
from typing import Any

class ProducerPlans:
    has_producers: bool
    has_transactions: bool
    def restart(self, state: Any, aborted: list[Any], has_producers: bool, has_transactions: bool) -> None: ...
    def forget(self, producer_ids: Iterable[int]) -> None: ...
