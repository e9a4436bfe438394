"""The file of an open batch, read by those who only read."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset
from logstore._native.core cimport (
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_END,
    LS_OK,
    LS_OPEN_BATCH_BOOT_ID_BYTES,
    LS_OPEN_BATCH_TOPIC_ID_BYTES,
    ls_batch_builder,
    ls_batch_builder_free,
    ls_batch_builder_init,
    ls_batch_builder_restore,
    ls_batch_builder_seal,
    ls_batch_header,
    ls_batch_stamp_fields,
    ls_fault,
    ls_open_batch_content,
    ls_open_batch_read,
    ls_status,
)
from logstore._native.faults cimport raise_fault


def sealed_open_batch(bytes content not None, str path not None, bytes topic_id not None, bytes boot_id not None, *,
                      int64_t base_offset, int32_t leader_epoch, bint append_time):
    """The records that a process left in its open batch, as the batch that they will be in the segment.

    Parameters
    ----------
    content : bytes
        The file's.
    path : str
        For errors.
    topic_id, boot_id : bytes
        Of the log, and of this run of the system.
    base_offset : int
        Where the log ends.
    leader_epoch : int
    append_time : bool
        Whether records of the topic have the time of their append.

    Returns
    -------
    bytes or None
        None where the file holds nothing that follows on there.

    Raises
    ------
    CorruptDataError
        The file is not what was stored.
    """
    cdef ls_open_batch_content found
    cdef ls_batch_stamp_fields fields
    cdef ls_batch_header header
    cdef ls_batch_builder builder
    cdef ls_fault fault
    cdef bytes topic = topic_id.ljust(LS_OPEN_BATCH_TOPIC_ID_BYTES, b"\0")
    cdef ls_status status
    if len(topic) != LS_OPEN_BATCH_TOPIC_ID_BYTES or len(boot_id) != LS_OPEN_BATCH_BOOT_ID_BYTES:
        raise ValueError("a topic id has 24 bytes at most, a boot id 16")
    status = ls_open_batch_read(<const uint8_t *><char *>content, len(content), <const uint8_t *><char *>topic,
                                <const uint8_t *><char *>boot_id, &found, &fault)
    if status == LS_END or (status == LS_OK and found.base_offset != base_offset):
        return None
    if status != LS_OK:
        raise_fault(&fault, path)
    memset(&builder, 0, sizeof(builder))
    if ls_batch_builder_init(&builder, found.records_bytes + 64, &fault) != LS_OK:
        raise_fault(&fault, path)
    try:
        if ls_batch_builder_restore(&builder, found.base_timestamp, found.records, found.records_bytes, &fault) != LS_OK:
            raise_fault(&fault, path)
        fields.base_offset = base_offset
        fields.partition_leader_epoch = leader_epoch
        fields.attributes = LS_ATTRIBUTE_LOG_APPEND_TIME if append_time else 0
        fields.log_append_timestamp = builder.max_timestamp if append_time else -1
        fields.producer_id = -1
        fields.producer_epoch = -1
        fields.base_sequence = -1
        ls_batch_builder_seal(&builder, &fields, &header)
        return builder.buffer[:builder.size_bytes]
    finally:
        ls_batch_builder_free(&builder)
