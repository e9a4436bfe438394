def sealed_open_batch(
    content: bytes,
    path: str,
    topic_id: bytes,
    boot_id: bytes,
    *,
    base_offset: int,
    leader_epoch: int,
    append_time: bool,
) -> bytes | None: ...
