# The C core's headers as Cython sees them: declarations only, in the order of csrc/include/logstore.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "logstore/status.h" nogil:
    ctypedef enum ls_status:
        LS_OK
        LS_END
        LS_TORN
        LS_CORRUPT
        LS_UNSUPPORTED
        LS_INVALID_ARGUMENT
        LS_TOO_LARGE
        LS_FULL
        LS_OUT_OF_RANGE
        LS_NO_MEMORY
        LS_IO
        LS_DISK_FULL
        LS_NO_DESCRIPTOR
        LS_STATUS_COUNT

    ctypedef struct ls_fault:
        ls_status status
        int os_errno
        const char *reason
        int64_t position
        int64_t expected
        int64_t actual

    const char *ls_status_name(ls_status status)


cdef extern from "logstore/early_wake.h" nogil:
    ctypedef struct ls_early_wake:
        pass

    void ls_early_wake_init(ls_early_wake *wake)
    void ls_early_wake_prepare(ls_early_wake *wake)
    bint ls_early_wake_announce(ls_early_wake *wake)
    bint ls_early_wake_publish(ls_early_wake *wake)
    bint ls_early_wake_await(ls_early_wake *wake, int64_t limit_ns)
    void ls_early_wake_until_cleared(ls_early_wake *wake, int64_t limit_ns)
    void ls_early_wake_clear(ls_early_wake *wake)


cdef extern from "logstore/directory_watch.h" nogil:
    ctypedef struct ls_directory_watch:
        pass

    enum:
        LS_EVERY_DIRECTORY

    ctypedef enum ls_watched:
        LS_WATCHED_CONTENTS
        LS_WATCHED_NAMES
        LS_WATCHED_END

    ctypedef struct ls_directory_change:
        int directory
        int is_more

    ls_status ls_directory_watch_open(ls_directory_watch **out, ls_fault *fault)
    void ls_directory_watch_close(ls_directory_watch *watch)
    ls_status ls_directory_watch_add(ls_directory_watch *watch, const char *path, ls_watched watched, int *directory,
                                     ls_fault *fault)
    void ls_directory_watch_remove(ls_directory_watch *watch, int directory)
    ls_status ls_directory_watch_wait(ls_directory_watch *watch, int timeout_ms, ls_directory_change *changes,
                                      size_t capacity, size_t *count, ls_fault *fault)
    void ls_directory_watch_wake(ls_directory_watch *watch)
    ls_status ls_directory_watch_relay(ls_directory_watch *watch, void (*ring)(void *context) noexcept, void *context,
                                       ls_fault *fault)
    bint ls_directory_watch_is_parked(const ls_directory_watch *watch)
    void ls_directory_watch_resume(ls_directory_watch *watch)
    void ls_directory_watch_end_relay(ls_directory_watch *watch)


cdef extern from "logstore/wake_table.h" nogil:
    enum:
        LS_WAKE_MARK_WORDS
        LS_WAKE_TABLE_BYTES

    ctypedef struct ls_wake_table:
        uint8_t *map

    ctypedef struct ls_wake_reader:
        ls_wake_table table

    ctypedef enum ls_wake_sleep:
        LS_WAKE_NOTHING
        LS_WAKE_NEWS
        LS_WAKE_SIGNAL

    void ls_wake_table_format(uint8_t *out)
    ls_status ls_wake_table_open(const char *path, ls_wake_table *out, ls_fault *fault)
    void ls_wake_table_close(ls_wake_table *table)
    void ls_wake_table_sweep(ls_wake_table *table)
    uint32_t ls_wake_bucket(const uint8_t *name, size_t name_bytes)
    bint ls_wake_may_be_awaited(const ls_wake_table *table, uint32_t bucket)
    bint ls_wake_is_awaited(const ls_wake_table *table, uint32_t bucket)
    bint ls_wake_announce(ls_wake_table *table, uint32_t bucket)
    void ls_wake_signal(ls_wake_table *table, uint32_t bucket, bint is_more)
    int ls_wake_reader_descriptor(const ls_wake_reader *reader)
    ls_status ls_wake_reader_open(const char *path, ls_wake_reader *out, ls_fault *fault)
    void ls_wake_reader_close(ls_wake_reader *reader)
    void ls_wake_reader_follow(ls_wake_reader *reader, uint32_t bucket)
    void ls_wake_reader_unfollow(ls_wake_reader *reader, uint32_t bucket)
    ls_wake_sleep ls_wake_reader_sleep(ls_wake_reader *reader, int64_t timeout_ns, int64_t look_out_ns)
    void ls_wake_reader_ring(ls_wake_reader *reader)
    bint ls_wake_reader_has_news(const ls_wake_reader *reader)
    bint ls_wake_reader_collect(ls_wake_reader *reader, uint32_t *changed, uint32_t *more)


cdef extern from "logstore/bytes.h" nogil:
    void ls_store_i64(uint8_t *at, int64_t value)
    void ls_store_i32(uint8_t *at, int32_t value)
    int16_t ls_load_i16(const uint8_t *at)
    int32_t ls_load_i32(const uint8_t *at)
    int64_t ls_load_i64(const uint8_t *at)


cdef extern from "logstore/crc32c.h" nogil:
    ctypedef struct ls_crc32c_implementation:
        const char *name
        uint32_t (*extend)(uint32_t crc, const uint8_t *bytes, size_t size) noexcept nogil

    uint32_t ls_crc32c_extend(uint32_t crc, const uint8_t *bytes, size_t size)
    uint32_t ls_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b)
    const ls_crc32c_implementation *ls_crc32c_in_use()
    const ls_crc32c_implementation *ls_crc32c_available(int i)


cdef extern from "logstore/murmur2.h" nogil:
    uint32_t ls_murmur2(const uint8_t *key, size_t key_bytes)
    int32_t ls_partition_for_key(const uint8_t *key, size_t key_bytes, int32_t partition_count)


cdef extern from "logstore/record_batch.h" nogil:
    enum:
        LS_BATCH_OVERHEAD_BYTES
        LS_BATCH_HEADER_BYTES
        LS_BATCH_CRC_AT
        LS_BATCH_ATTRIBUTES_AT
        LS_BATCH_BASE_TIMESTAMP_AT
        LS_CODEC_MASK
        LS_CODEC_NONE
        LS_ATTRIBUTE_LOG_APPEND_TIME
        LS_ATTRIBUTE_TRANSACTIONAL
        LS_ATTRIBUTE_CONTROL
        LS_ATTRIBUTE_DELETE_HORIZON

    ctypedef struct ls_batch_header:
        int64_t base_offset
        int32_t batch_length
        int32_t partition_leader_epoch
        int8_t magic
        uint32_t crc
        int16_t attributes
        int32_t last_offset_delta
        int64_t base_timestamp
        int64_t max_timestamp
        int64_t producer_id
        int16_t producer_epoch
        int32_t base_sequence
        int32_t records_count

    int64_t ls_batch_size_bytes(const ls_batch_header *header)
    int64_t ls_batch_last_offset(const ls_batch_header *header)
    int ls_batch_codec(const ls_batch_header *header)
    ls_status ls_batch_header_read(const uint8_t *at, const uint8_t *end, int64_t position,
                                   ls_batch_header *out, ls_fault *fault)
    ls_status ls_batch_header_peek(const uint8_t *at, const uint8_t *end, int64_t position, ls_batch_header *out,
                                   ls_fault *fault)
    ls_status ls_batch_validate(const uint8_t *at, const uint8_t *end, int64_t position,
                                ls_batch_header *out, ls_fault *fault)
    void ls_batch_header_write(const ls_batch_header *header, uint8_t *out)
    uint32_t ls_batch_crc(const uint8_t *batch, size_t batch_bytes)
    void ls_batch_stamp(uint8_t *batch, int64_t base_offset, int32_t partition_leader_epoch)
    void ls_batch_stamp_timestamps(uint8_t *batch, size_t batch_bytes, bint log_append_time,
                                   int64_t max_timestamp)
    void ls_batch_stamp_producer(uint8_t *batch, size_t batch_bytes, bint transactional, int64_t producer_id,
                                 int16_t producer_epoch, int32_t base_sequence)

    ctypedef struct ls_record:
        int64_t offset
        int64_t timestamp
        const uint8_t *key
        const uint8_t *value
        const uint8_t *headers
        int32_t key_bytes
        int32_t value_bytes
        int32_t headers_count
        int32_t headers_bytes

    ctypedef struct ls_record_iterator:
        const uint8_t *start
        const uint8_t *at
        const uint8_t *end
        int64_t base_offset
        int32_t last_offset_delta
        int32_t previous_delta
        int32_t remaining

    void ls_record_iterator_init(ls_record_iterator *iterator, const ls_batch_header *header,
                                 const uint8_t *payload, const uint8_t *payload_end)
    ls_status ls_record_iterator_next(ls_record_iterator *iterator, ls_record *out, ls_fault *fault)

    ctypedef struct ls_record_header:
        const uint8_t *key
        const uint8_t *value
        int32_t key_bytes
        int32_t value_bytes

    ls_status ls_record_header_next(const uint8_t **at, const uint8_t *end, ls_record_header *out,
                                    ls_fault *fault)
    ls_status ls_batch_check_records(const ls_batch_header *header, const uint8_t *payload,
                                     const uint8_t *payload_end, int64_t *max_timestamp,
                                     int32_t *null_key_index, ls_fault *fault)

    ctypedef struct ls_columns:
        int64_t *offsets
        int64_t *timestamps
        int32_t *key_starts
        int32_t *key_bytes
        int32_t *value_starts
        int32_t *value_bytes
        int32_t *headers_starts
        int32_t *headers_counts
        size_t count
        size_t capacity

    ls_status ls_columns_append(ls_columns *columns, const ls_batch_header *header,
                                const uint8_t *payload, const uint8_t *payload_end,
                                const uint8_t *origin, ls_fault *fault)

    ctypedef struct ls_span:
        const uint8_t *bytes
        int32_t size_bytes

    ctypedef struct ls_batch_builder:
        uint8_t *buffer
        size_t capacity_bytes
        size_t size_bytes
        int64_t base_timestamp
        int64_t max_timestamp
        int32_t records_count
        bint is_lent

    ctypedef struct ls_batch_mark:
        size_t size_bytes
        int64_t max_timestamp
        int32_t records_count

    ls_status ls_batch_builder_init(ls_batch_builder *builder, size_t capacity_bytes, ls_fault *fault)
    void ls_batch_builder_free(ls_batch_builder *builder)
    void ls_batch_builder_reset(ls_batch_builder *builder)
    ls_batch_mark ls_batch_builder_mark(const ls_batch_builder *builder)
    void ls_batch_builder_rewind(ls_batch_builder *builder, ls_batch_mark mark)
    void ls_batch_builder_lend(ls_batch_builder *builder, uint8_t *buffer, size_t capacity_bytes)
    ls_status ls_batch_builder_restore(ls_batch_builder *builder, int64_t base_timestamp, const uint8_t *records,
                                       size_t size_bytes, ls_fault *fault)
    size_t ls_record_size_bytes_max(int32_t key_bytes, int32_t value_bytes,
                                    const ls_record_header *headers, int32_t headers_count)
    ls_status ls_batch_builder_join(ls_batch_builder *builder, int64_t timestamp, ls_span key, ls_span value,
                                    size_t limit_bytes)
    ls_status ls_batch_builder_append(ls_batch_builder *builder, int64_t timestamp, ls_span key,
                                      ls_span value, const ls_record_header *headers,
                                      int32_t headers_count, ls_fault *fault)
    ls_status ls_batch_builder_append_many(ls_batch_builder *builder, const ls_span *keys,
                                           const ls_span *values, const int64_t *timestamps,
                                           int64_t timestamp, size_t count, size_t limit_bytes,
                                           size_t *appended, ls_fault *fault)

    ctypedef struct ls_batch_stamp_fields:
        int64_t base_offset
        int32_t partition_leader_epoch
        int16_t attributes
        int64_t log_append_timestamp
        int64_t producer_id
        int16_t producer_epoch
        int32_t base_sequence

    void ls_batch_builder_seal(ls_batch_builder *builder, const ls_batch_stamp_fields *fields,
                               ls_batch_header *out)


cdef extern from "logstore/batch_run.h" nogil:
    ctypedef struct ls_batch_run:
        size_t size_bytes
        size_t records_count
        int64_t batches_count
        int64_t max_timestamp

    ls_status ls_batch_run_build(uint8_t *buffer, size_t capacity_bytes, const ls_span *keys, const ls_span *values,
                                 const int64_t *timestamps, int64_t timestamp, size_t count, size_t batch_bytes_max,
                                 const ls_batch_stamp_fields *first, ls_batch_run *out, ls_fault *fault)


cdef extern from "logstore/file_identity.h" nogil:
    ctypedef struct ls_file_identity:
        uint64_t mount_id
        uint64_t device
        uint64_t inode
        int64_t birth_ns

    ls_status ls_file_identify(const char *path, ls_file_identity *out, ls_fault *fault)


cdef extern from "logstore/open_batch.h" nogil:
    enum:
        LS_OPEN_BATCH_TOPIC_ID_BYTES
        LS_OPEN_BATCH_BOOT_ID_BYTES

    ctypedef struct ls_open_batch:
        uint8_t *map
        size_t end_bytes
        bint has_begun

    ctypedef struct ls_open_batch_content:
        const uint8_t *records
        size_t records_bytes
        int64_t base_offset
        int64_t base_timestamp

    ls_status ls_open_batch_create(const char *path, const uint8_t *topic_id, const uint8_t *boot_id,
                                   size_t batch_bytes, ls_open_batch *out, ls_fault *fault)
    void ls_open_batch_free(ls_open_batch *open_batch)
    uint8_t *ls_open_batch_buffer(const ls_open_batch *open_batch)
    size_t ls_open_batch_capacity_bytes(const ls_open_batch *open_batch)
    void ls_open_batch_begin(ls_open_batch *open_batch, int64_t base_offset, int64_t base_timestamp)
    void ls_open_batch_commit(ls_open_batch *open_batch, size_t size_bytes)
    void ls_open_batch_clear(ls_open_batch *open_batch)
    ls_status ls_open_batch_read(const uint8_t *bytes, size_t size, const uint8_t *topic_id, const uint8_t *boot_id,
                                 ls_open_batch_content *out, ls_fault *fault)


cdef extern from "logstore/file.h" nogil:
    ctypedef struct ls_file:
        pass

    enum:
        LS_FILE_READ
        LS_FILE_WRITE
        LS_FILE_CREATE

    ls_status ls_file_open(const char *path, int mode, ls_file **out, ls_fault *fault)
    ls_status ls_file_in_memory(const uint8_t *bytes, size_t size, ls_file **out, ls_fault *fault)
    ctypedef struct ls_file_facts:
        int64_t size_bytes
        int64_t modified_ms

    ls_status ls_file_look_at_logs(const char *directory, const int64_t *base_offsets, size_t count, ls_file_facts *out,
                                   ls_fault *fault) nogil
    int64_t ls_descriptors_max()
    int ls_file_descriptor(const ls_file *file)
    ls_status ls_file_sync(ls_file *file, ls_fault *fault)
    ls_status ls_file_size(ls_file *file, int64_t *size, ls_fault *fault)
    ls_status ls_file_read(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got,
                           ls_fault *fault)
    ls_status ls_file_write(ls_file *file, int64_t position, const uint8_t *bytes, size_t size,
                            ls_fault *fault)
    ls_status ls_file_truncate(ls_file *file, int64_t size, ls_fault *fault)
    void ls_file_close(ls_file *file)


cdef extern from "logstore/offset_index.h" nogil:
    enum:
        LS_OFFSET_INDEX_ENTRY_BYTES
    ctypedef struct ls_offset_index:
        pass
    size_t ls_offset_index_count(const ls_offset_index *index)
    void ls_offset_index_entry(const ls_offset_index *index, size_t i, int64_t *offset,
                               int32_t *position)
    void ls_offset_index_lookup(const ls_offset_index *index, int64_t target, int64_t *offset,
                                int32_t *position)
    void ls_offset_index_truncate_position(ls_offset_index *index, int64_t position)
    void ls_offset_index_encode(const ls_offset_index *index, size_t first, size_t count,
                                uint8_t *out)
    ls_status ls_offset_index_load(ls_offset_index *index, const uint8_t *bytes, size_t size,
                                   int64_t log_size_bytes, ls_fault *fault)


cdef extern from "logstore/time_index.h" nogil:
    enum:
        LS_TIME_INDEX_ENTRY_BYTES
    ctypedef struct ls_time_index:
        pass
    size_t ls_time_index_count(const ls_time_index *index)
    void ls_time_index_entry(const ls_time_index *index, size_t i, int64_t *timestamp,
                             int64_t *offset)
    void ls_time_index_lookup(const ls_time_index *index, int64_t target, int64_t *timestamp,
                              int64_t *offset)
    void ls_time_index_truncate(ls_time_index *index, int64_t target_offset)
    void ls_time_index_encode(const ls_time_index *index, size_t first, size_t count, uint8_t *out)
    ls_status ls_time_index_load(ls_time_index *index, const uint8_t *bytes, size_t size,
                                 int64_t end_offset, ls_fault *fault)


cdef extern from "logstore/digest.h" nogil:
    enum:
        LS_DIGEST_BYTES
    ctypedef struct ls_digest:
        uint64_t high
        uint64_t low
    void ls_digest_extend(ls_digest *digest, const ls_batch_header *header)
    void ls_digest_write(const ls_digest *digest, uint8_t *out)


cdef extern from "logstore/file_pool.h" nogil:
    ctypedef struct ls_file_pool:
        pass

    ls_status ls_file_pool_create(int open_max, int unsynced_max, ls_file_pool **out, ls_fault *fault)
    void ls_file_pool_limit(ls_file_pool *pool, int open_max, int unsynced_max)
    int ls_file_pool_open_count(const ls_file_pool *pool)
    bint ls_file_pool_make_room(ls_file_pool *pool)
    void ls_file_pool_forget(ls_file_pool *pool)


cdef extern from "logstore/segment.h" nogil:
    ctypedef struct ls_segment:
        pass

    ctypedef struct ls_segment_options:
        int64_t base_offset
        int64_t end_offset_max
        int32_t index_interval_bytes
        size_t offset_index_capacity
        size_t time_index_capacity
        int is_contiguous

    ctypedef struct ls_segment_state:
        int64_t size_bytes
        int64_t next_offset
        int64_t max_timestamp
        int64_t max_timestamp_offset
        int64_t first_batch_max_timestamp
        int64_t bytes_since_last_entry
        int32_t last_leader_epoch

    ls_status ls_segment_create(ls_file *log, const ls_segment_options *options,
                                const ls_segment_state *state, ls_segment **out, ls_fault *fault)
    void ls_segment_free(ls_segment *segment)
    int64_t ls_segment_size_bytes(const ls_segment *segment)
    void ls_segment_get_state(const ls_segment *segment, ls_segment_state *out)
    int ls_segment_digest(const ls_segment *segment, ls_digest *out)
    int64_t ls_segment_base_offset(const ls_segment *segment)
    ls_file *ls_segment_log_file(ls_segment *segment)
    ls_status ls_segment_share_descriptor(ls_segment *segment, ls_file_pool *pool, const char *path, int mode,
                                          bint is_synced, ls_fault *fault)
    void ls_segment_allow_gaps(ls_segment *segment)
    ls_offset_index *ls_segment_offset_index(ls_segment *segment)
    ls_time_index *ls_segment_time_index(ls_segment *segment)

    ctypedef struct ls_roll_policy:
        int64_t segment_bytes
        int64_t segment_ms
        int64_t created_ms

    int ls_segment_should_roll(const ls_segment *segment, const ls_roll_policy *policy,
                               int64_t batch_bytes, int64_t max_timestamp, int64_t last_offset,
                               int64_t now_ms)
    ls_status ls_segment_append(ls_segment *segment, const uint8_t *batch, size_t batch_bytes,
                                const ls_batch_header *header, ls_fault *fault)
    ls_status ls_segment_append_run(ls_segment *segment, const uint8_t *batches, size_t bytes, ls_fault *fault)
    ls_status ls_segment_append_batches(ls_segment *segment, const uint8_t *batches, size_t size,
                                        size_t *appended, ls_fault *fault)
    void ls_segment_expect_append(const ls_segment *segment)
    void ls_segment_close_time_index(ls_segment *segment)
    void ls_segment_fill_ahead(ls_segment *segment, int64_t limit_bytes)
    void ls_segment_write_back(ls_segment *segment, int64_t position) nogil
    int64_t ls_segment_filled_bytes(const ls_segment *segment)
    int64_t ls_segment_reserved_bytes(const ls_segment *segment)
    ls_status ls_segment_cut_ahead(ls_segment *segment, ls_fault *fault)

    ctypedef struct ls_batch_location:
        int64_t position
        ls_batch_header header

    ls_status ls_segment_locate(ls_segment *segment, int64_t offset, ls_batch_location *out,
                                ls_fault *fault)

    ctypedef struct ls_fetch_plan:
        size_t room_bytes
        int64_t from_position
        int64_t upto_position

    int64_t ls_segment_find_entry(const ls_segment *segment, int64_t offset)
    void ls_segment_plan_fetch(ls_segment *segment, int64_t offset, bint expect_at_entry, ls_fetch_plan *out)
    ls_status ls_segment_fetch(ls_segment *segment, int64_t offset, const ls_fetch_plan *plan, uint8_t *buffer,
                               ls_batch_location *out, const uint8_t **batch, ls_fault *fault)
    bint ls_segment_find_cut(ls_segment *segment, int64_t position, int64_t size_bytes, int64_t *cut,
                             int64_t *last_offset)
    ls_status ls_segment_find_timestamp(ls_segment *segment, int64_t timestamp, int64_t from_offset,
                                        ls_batch_location *out, ls_fault *fault)
    ls_status ls_segment_read(ls_segment *segment, int64_t position, uint8_t *out, size_t size,
                              size_t *got, ls_fault *fault)

    ctypedef enum ls_tail:
        LS_TAIL_NONE
        LS_TAIL_TORN
        LS_TAIL_CORRUPT

    ctypedef struct ls_recovery_report:
        int64_t file_size_bytes
        int64_t valid_bytes
        int64_t next_offset
        int64_t batches_count
        ls_tail tail
        ls_fault tail_fault
        int64_t next_valid_position
        bint is_filled

    ls_status ls_segment_recover(ls_segment *segment, int64_t position, int64_t next_offset,
                                 int deep, ls_recovery_report *report, ls_fault *fault)
    ls_status ls_segment_truncate_bytes(ls_segment *segment, int64_t size_bytes,
                                        int64_t next_offset, ls_fault *fault)
    ls_status ls_segment_catch_up(ls_segment *segment, int64_t *grew, ls_fault *fault)
    enum:
        LS_CATCH_UP_FIRST_BYTES
    ls_status ls_segment_catch_up_into(ls_segment *segment, uint8_t *first, size_t *taken, int64_t *grew, ls_fault *fault)


cdef extern from "logstore/key_offset_map.h" nogil:
    enum:
        LS_KEY_SECRET_BYTES
        LS_KEY_SLOT_BYTES

    ctypedef struct ls_key_hash:
        uint64_t low
        uint64_t high

    ctypedef struct ls_key_offset_map:
        pass

    ls_status ls_key_offset_map_create(size_t memory_bytes_max, const uint8_t *secret, ls_key_offset_map **out,
                                       ls_fault *fault)
    void ls_key_offset_map_free(ls_key_offset_map *map)
    size_t ls_key_offset_map_count(const ls_key_offset_map *map)
    size_t ls_key_offset_map_memory_bytes(const ls_key_offset_map *map)
    ls_key_hash ls_key_offset_map_hash(const ls_key_offset_map *map, const uint8_t *key, size_t key_bytes)
    bint ls_key_offset_map_put(ls_key_offset_map *map, ls_key_hash hash, int64_t offset, int64_t *previous)
    int64_t ls_key_offset_map_get(const ls_key_offset_map *map, ls_key_hash hash)


cdef extern from "logstore/transaction_history.h" nogil:
    ctypedef struct ls_aborted_transaction:
        int64_t producer_id
        int64_t first_offset
        int64_t last_offset
        int64_t last_stable_offset

    ctypedef struct ls_producer_last:
        int64_t producer_id
        int64_t last_data_offset
        int64_t open_offset
        int16_t epoch

    ctypedef struct ls_transaction_history:
        ls_aborted_transaction *aborted
        size_t aborted_count
        bint is_partial

    ls_status ls_transaction_history_set_producers(ls_transaction_history *history,
                                                   const ls_producer_last *producers, size_t count,
                                                   ls_fault *fault)

    void ls_transaction_history_free(ls_transaction_history *history)
    ls_status ls_transaction_history_add(ls_transaction_history *history, const uint8_t *batch,
                                         const ls_batch_header *header, ls_fault *fault)
    void ls_transaction_history_finish(ls_transaction_history *history)
    int64_t ls_transaction_history_first_open(const ls_transaction_history *history)


cdef extern from "logstore/compaction.h" nogil:
    ctypedef struct ls_compaction_rules:
        int64_t first_dirty_offset
        int64_t first_uncleanable_offset
        int64_t now_ms
        int64_t delete_retention_ms
        const uint8_t *erased_key
        size_t erased_key_bytes

    ctypedef struct ls_compaction_counts:
        int64_t batches_read
        int64_t batches_copied
        int64_t batches_rebuilt
        int64_t batches_emptied
        int64_t records_read
        int64_t records_kept
        int64_t records_superseded
        int64_t records_without_key
        int64_t records_aborted
        int64_t tombstones_expired
        int64_t markers_dropped
        int64_t keys_mapped

    ctypedef enum ls_compaction_step:
        LS_COMPACTION_MORE
        LS_COMPACTION_PAYLOAD
        LS_COMPACTION_COMPRESS
        LS_COMPACTION_HISTORY
        LS_COMPACTION_FULL
        LS_COMPACTION_OUTPUT

    ctypedef struct ls_compactor:
        pass

    ls_status ls_compactor_create(const ls_compaction_rules *rules, ls_key_offset_map *map, ls_compactor **out,
                                  ls_fault *fault)
    void ls_compactor_free(ls_compactor *compactor)
    void ls_compactor_set_history(ls_compactor *compactor, const ls_transaction_history *history)
    void ls_compactor_start_pass(ls_compactor *compactor)
    void ls_compactor_start_segment(ls_compactor *compactor, int64_t base_offset, int64_t end_offset)
    ls_status ls_compactor_keep_last(ls_compactor *compactor, ls_fault *fault)
    const ls_compaction_counts *ls_compactor_counts(const ls_compactor *compactor)
    int64_t ls_compactor_mapped_end_offset(const ls_compactor *compactor)
    void ls_compactor_map_ended(ls_compactor *compactor, int64_t end_offset)
    ls_status ls_compaction_map(ls_compactor *compactor, const uint8_t *at, const uint8_t *end, int64_t position,
                                ls_compaction_step *step, size_t *consumed, size_t *wanted, ls_fault *fault)
    ls_status ls_compaction_map_payload(ls_compactor *compactor, const uint8_t *payload,
                                        const uint8_t *payload_end, ls_compaction_step *step, ls_fault *fault)
    ls_status ls_compaction_rewrite(ls_compactor *compactor, const uint8_t *at, const uint8_t *end,
                                    int64_t position, ls_compaction_step *step, size_t *consumed, size_t *wanted,
                                    ls_fault *fault)
    ls_status ls_compaction_rewrite_payload(ls_compactor *compactor, const uint8_t *batch,
                                            const uint8_t *payload, const uint8_t *payload_end,
                                            ls_compaction_step *step, ls_fault *fault)
    const uint8_t *ls_compactor_pending(const ls_compactor *compactor, ls_batch_header *header, size_t *size)
    ls_status ls_compaction_rewrite_compressed(ls_compactor *compactor, const uint8_t *batch, size_t size,
                                               ls_fault *fault)
    const uint8_t *ls_compactor_output(const ls_compactor *compactor, size_t *size)
    void ls_compactor_clear_output(ls_compactor *compactor)
    const ls_aborted_transaction *ls_compactor_aborted(const ls_compactor *compactor, size_t *count)
    size_t ls_compactor_memory_bytes(const ls_compactor *compactor)
    void ls_compactor_clear_aborted(ls_compactor *compactor)
    ctypedef struct ls_compaction_ahead:
        pass
    ls_compaction_ahead *ls_compaction_ahead_create(ls_compactor *compactor)
    void ls_compaction_ahead_free(ls_compaction_ahead *ahead)
    void ls_compaction_ahead_start(ls_compaction_ahead *ahead, ls_file *file, const uint8_t *index,
                                   size_t entries_count, bint rewrites)
    void ls_compaction_ahead_stop(ls_compaction_ahead *ahead)
    ls_status ls_compaction_go_ahead(ls_compaction_ahead *ahead, int64_t position, int64_t size_bytes,
                                     ls_compaction_step *step, int64_t *reached, int64_t *resume, ls_fault *fault)


cdef extern from "logstore/verification.h" nogil:
    ctypedef struct ls_index_check:
        const uint8_t *bytes
        size_t entries_count
        size_t next
        const char *fault
        size_t fault_entry
        int64_t expected
        int64_t actual

    ctypedef struct ls_verification_ahead:
        pass

    ctypedef struct ls_verification:
        int64_t position
        int64_t next_offset
        int32_t leader_epoch
        int is_next_exact
        int64_t batches_count
        int64_t records_count
        int64_t last_timestamp
        int64_t max_timestamp
        int64_t max_timestamp_offset
        int is_max_known
        ls_digest digest
        ls_index_check offset_index
        ls_index_check time_index
        ls_verification_ahead *ahead

    ls_verification_ahead *ls_verification_ahead_create(ls_segment *segment)
    void ls_verification_ahead_free(ls_verification_ahead *ahead)
    void ls_verification_init(ls_verification *verification, int64_t base_offset,
                              const uint8_t *offset_index, size_t offset_index_bytes,
                              const uint8_t *time_index, size_t time_index_bytes)
    ls_status ls_segment_verify(ls_segment *segment, ls_verification *verification, int64_t limit,
                                int64_t budget_bytes, int deep, ls_fault *fault)
    void ls_verification_skip(ls_verification *verification, int64_t position, int64_t next_offset,
                              int32_t leader_epoch, int is_next_exact)
    void ls_verification_finish(ls_verification *verification)


cdef extern from "logstore/work_ahead.h" nogil:
    ctypedef struct ls_work_ahead:
        pass

    ctypedef void (*ls_work)(void *context, void *piece, int worker) noexcept nogil

    ls_work_ahead *ls_work_ahead_create(ls_work work, void *context)
    bint ls_work_ahead_is_usable(const ls_work_ahead *ahead)
    size_t ls_work_ahead_count(const ls_work_ahead *ahead)
    void ls_work_ahead_put(ls_work_ahead *ahead, void *piece)
    void *ls_work_ahead_take(ls_work_ahead *ahead)
    void ls_work_ahead_drop(ls_work_ahead *ahead)
    void ls_work_ahead_free(ls_work_ahead *ahead)
