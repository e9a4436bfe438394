from logstore._native.wakeup import Wakeup

class SharedWakeup(Wakeup):
    def _look_again(self) -> None: ...
