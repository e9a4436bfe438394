from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from logstore._native.log_writer import LogWriter

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

class LogBatcher(LogWriter):
    @property
    def open_batch_records_count(self) -> int: ...
    def _lingered(self) -> None: ...
    def _locked(self, step: Callable[[*_Arguments], _Result], *args: *_Arguments) -> _Result: ...
