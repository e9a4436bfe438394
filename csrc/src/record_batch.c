#include "logstore/record_batch.h"

#include "logstore/bytes.h"
#include "logstore/crc32c.h"

enum {
    LEGAL_LENGTH_MIN = 14, /* of any magic: the overhead of magic 0 */
    BATCH_LENGTH_MIN = LS_BATCH_HEADER_BYTES - LS_BATCH_OVERHEAD_BYTES,
    FRAME_BYTES = LS_BATCH_MAGIC_AT + 1, /* what all magics have in common */

    CONTROL_KEY_BYTES_MIN = 4,  /* version, type */
    CONTROL_TYPE_AT = 2,
    CONTROL_TYPE_ABORT = 0,
    CONTROL_TYPE_COMMIT = 1,
    MARKER_VALUE_BYTES_MIN = 6 /* version, coordinator epoch */
};

/* The rules that need nothing behind the frame. Where fewer than its 17 bytes are there, those fields are
 * judged that are. `whole` asks for all declared bytes before another magic counts as a kind of entry. */
static ls_status check_frame(const uint8_t *at, const uint8_t *end, int64_t position, bool whole,
                             ls_fault *fault) {
    int64_t available = end - at;
    if (available == 0) return LS_END;
    if (available >= LS_BATCH_LENGTH_AT) {
        int64_t base_offset = ls_load_i64(at + LS_BATCH_BASE_OFFSET_AT);
        if (base_offset < 0) {
            return ls_fail(fault, LS_CORRUPT, "base offset is negative", position + LS_BATCH_BASE_OFFSET_AT,
                           0, base_offset);
        }
    }
    if (available >= LS_BATCH_OVERHEAD_BYTES) {
        int32_t length = ls_load_i32(at + LS_BATCH_LENGTH_AT);
        if (length < LEGAL_LENGTH_MIN) {
            return ls_fail(fault, LS_CORRUPT, "batch length is below the smallest possible",
                           position + LS_BATCH_LENGTH_AT, BATCH_LENGTH_MIN, length);
        }
        if (available >= FRAME_BYTES) {
            int8_t magic = (int8_t)at[LS_BATCH_MAGIC_AT];
            if (magic != LS_BATCH_MAGIC) {
                bool framed = !whole || available >= (int64_t)length + LS_BATCH_OVERHEAD_BYTES;
                return ls_fail(fault, framed ? LS_UNSUPPORTED : LS_CORRUPT, "magic is not 2",
                               position + LS_BATCH_MAGIC_AT, LS_BATCH_MAGIC, magic);
            }
            if (length < BATCH_LENGTH_MIN) {
                return ls_fail(fault, LS_CORRUPT, "batch length is below the smallest possible",
                               position + LS_BATCH_LENGTH_AT, BATCH_LENGTH_MIN, length);
            }
        }
    }
    if (available < LS_BATCH_HEADER_BYTES) {
        return ls_fail(fault, LS_TORN, "batch header is cut off", position, LS_BATCH_HEADER_BYTES, available);
    }
    return LS_OK;
}

static void load_header(const uint8_t *at, ls_batch_header *out) {
    out->base_offset = ls_load_i64(at + LS_BATCH_BASE_OFFSET_AT);
    out->batch_length = ls_load_i32(at + LS_BATCH_LENGTH_AT);
    out->partition_leader_epoch = ls_load_i32(at + LS_BATCH_LEADER_EPOCH_AT);
    out->magic = (int8_t)at[LS_BATCH_MAGIC_AT];
    out->crc = ls_load_u32(at + LS_BATCH_CRC_AT);
    out->attributes = ls_load_i16(at + LS_BATCH_ATTRIBUTES_AT);
    out->last_offset_delta = ls_load_i32(at + LS_BATCH_LAST_OFFSET_DELTA_AT);
    out->base_timestamp = ls_load_i64(at + LS_BATCH_BASE_TIMESTAMP_AT);
    out->max_timestamp = ls_load_i64(at + LS_BATCH_MAX_TIMESTAMP_AT);
    out->producer_id = ls_load_i64(at + LS_BATCH_PRODUCER_ID_AT);
    out->producer_epoch = ls_load_i16(at + LS_BATCH_PRODUCER_EPOCH_AT);
    out->base_sequence = ls_load_i32(at + LS_BATCH_BASE_SEQUENCE_AT);
    out->records_count = ls_load_i32(at + LS_BATCH_RECORDS_COUNT_AT);
}

static ls_status read_header(const uint8_t *at, const uint8_t *end, int64_t position, bool whole,
                             ls_batch_header *out, ls_fault *fault) {
    ls_status status = check_frame(at, end, position, whole, fault);
    if (status != LS_OK) return status;

    ls_batch_header header;
    load_header(at, &header);
    if (header.last_offset_delta < 0) {
        return ls_fail(fault, LS_CORRUPT, "last offset delta is negative",
                       position + LS_BATCH_LAST_OFFSET_DELTA_AT, 0, header.last_offset_delta);
    }
    if (header.partition_leader_epoch < -1) { /* outside of the CRC */
        return ls_fail(fault, LS_CORRUPT, "leader epoch is below -1", position + LS_BATCH_LEADER_EPOCH_AT, -1,
                       header.partition_leader_epoch);
    }
    if (header.base_offset > INT64_MAX - header.last_offset_delta) {
        return ls_fail(fault, LS_CORRUPT, "last offset is past the largest possible",
                       position + LS_BATCH_LAST_OFFSET_DELTA_AT, INT64_MAX - header.base_offset,
                       header.last_offset_delta);
    }
    if (header.records_count < 0) {
        return ls_fail(fault, LS_CORRUPT, "records count is negative", position + LS_BATCH_RECORDS_COUNT_AT,
                       0, header.records_count);
    }
    int64_t count_max = (int64_t)header.last_offset_delta + 1;
    if (header.records_count > count_max) {
        return ls_fail(fault, LS_CORRUPT, "more records than offsets", position + LS_BATCH_RECORDS_COUNT_AT,
                       count_max, header.records_count);
    }
    if (whole && end - at < ls_batch_size_bytes(&header)) {
        return ls_fail(fault, LS_TORN, "batch is cut off", position, ls_batch_size_bytes(&header), end - at);
    }
    *out = header;
    return LS_OK;
}

ls_status ls_batch_header_read(const uint8_t *at, const uint8_t *end, int64_t position, ls_batch_header *out,
                               ls_fault *fault) {
    return read_header(at, end, position, true, out, fault);
}

ls_status ls_batch_header_peek(const uint8_t *at, const uint8_t *end, int64_t position, ls_batch_header *out,
                               ls_fault *fault) {
    return read_header(at, end, position, false, out, fault);
}

/* Control records are for the log itself, so the log must be able to read them. Other types than the
 * transaction markers have values of their own, and unknown types are skipped by whoever reads them. */
static ls_status check_control_records(const uint8_t *batch, int64_t position, const ls_batch_header *header,
                                       ls_fault *fault) {
    const uint8_t *payload = batch + LS_BATCH_HEADER_BYTES;
    ls_record_iterator iterator;
    ls_record_iterator_init(&iterator, header, payload, batch + ls_batch_size_bytes(header));
    for (;;) {
        int64_t record_position = position + (iterator.at - batch);
        ls_record record;
        ls_status status = ls_record_iterator_next(&iterator, &record, fault);
        if (status == LS_END) return LS_OK;
        if (status != LS_OK) {
            fault->position += position;
            return status;
        }
        if (record.key_bytes < CONTROL_KEY_BYTES_MIN) {
            return ls_fail(fault, LS_CORRUPT, "control record's key is too short", record_position,
                           CONTROL_KEY_BYTES_MIN, record.key_bytes);
        }
        if (ls_load_i16(record.key) < 0) {
            return ls_fail(fault, LS_CORRUPT, "control record's version is negative", record_position, 0,
                           ls_load_i16(record.key));
        }
        int16_t type = ls_load_i16(record.key + CONTROL_TYPE_AT);
        bool is_marker =
            header->producer_id >= 0 && (type == CONTROL_TYPE_ABORT || type == CONTROL_TYPE_COMMIT);
        if (!is_marker) continue;
        if (record.value_bytes < MARKER_VALUE_BYTES_MIN) {
            return ls_fail(fault, LS_CORRUPT, "transaction marker's value is too short", record_position,
                           MARKER_VALUE_BYTES_MIN, record.value_bytes);
        }
        if (ls_load_i16(record.value) < 0) {
            return ls_fail(fault, LS_CORRUPT, "transaction marker's version is negative", record_position, 0,
                           ls_load_i16(record.value));
        }
    }
}

ls_status ls_batch_validate(const uint8_t *at, const uint8_t *end, int64_t position, ls_batch_header *out,
                            ls_fault *fault) {
    ls_batch_header header;
    ls_status status = ls_batch_header_read(at, end, position, &header, fault);
    if (status != LS_OK) return status;
    uint32_t crc = ls_batch_crc(at, (size_t)ls_batch_size_bytes(&header));
    if (crc != header.crc) {
        return ls_fail(fault, LS_CORRUPT, "CRC does not match", position + LS_BATCH_CRC_AT, header.crc, crc);
    }
    if ((header.attributes & LS_ATTRIBUTE_CONTROL) != 0 && ls_batch_codec(&header) == LS_CODEC_NONE) {
        status = check_control_records(at, position, &header, fault);
        if (status != LS_OK) return status;
    }
    *out = header;
    return LS_OK;
}

void ls_batch_header_write(const ls_batch_header *header, uint8_t *out) {
    ls_store_i64(out + LS_BATCH_BASE_OFFSET_AT, header->base_offset);
    ls_store_i32(out + LS_BATCH_LENGTH_AT, header->batch_length);
    ls_store_i32(out + LS_BATCH_LEADER_EPOCH_AT, header->partition_leader_epoch);
    out[LS_BATCH_MAGIC_AT] = (uint8_t)header->magic;
    ls_store_u32(out + LS_BATCH_CRC_AT, header->crc);
    ls_store_i16(out + LS_BATCH_ATTRIBUTES_AT, header->attributes);
    ls_store_i32(out + LS_BATCH_LAST_OFFSET_DELTA_AT, header->last_offset_delta);
    ls_store_i64(out + LS_BATCH_BASE_TIMESTAMP_AT, header->base_timestamp);
    ls_store_i64(out + LS_BATCH_MAX_TIMESTAMP_AT, header->max_timestamp);
    ls_store_i64(out + LS_BATCH_PRODUCER_ID_AT, header->producer_id);
    ls_store_i16(out + LS_BATCH_PRODUCER_EPOCH_AT, header->producer_epoch);
    ls_store_i32(out + LS_BATCH_BASE_SEQUENCE_AT, header->base_sequence);
    ls_store_i32(out + LS_BATCH_RECORDS_COUNT_AT, header->records_count);
}

uint32_t ls_batch_crc(const uint8_t *batch, size_t batch_bytes) {
    return ls_crc32c_extend(0, batch + LS_BATCH_ATTRIBUTES_AT, batch_bytes - LS_BATCH_ATTRIBUTES_AT);
}

void ls_batch_stamp(uint8_t *batch, int64_t base_offset, int32_t partition_leader_epoch) {
    ls_store_i64(batch + LS_BATCH_BASE_OFFSET_AT, base_offset);
    ls_store_i32(batch + LS_BATCH_LEADER_EPOCH_AT, partition_leader_epoch);
}

void ls_batch_stamp_timestamps(uint8_t *batch, size_t batch_bytes, bool log_append_time,
                               int64_t max_timestamp) {
    uint16_t attributes = ls_load_u16(batch + LS_BATCH_ATTRIBUTES_AT);
    attributes = (uint16_t)(log_append_time ? attributes | LS_ATTRIBUTE_LOG_APPEND_TIME
                                            : attributes & ~LS_ATTRIBUTE_LOG_APPEND_TIME);
    ls_store_u16(batch + LS_BATCH_ATTRIBUTES_AT, attributes);
    ls_store_i64(batch + LS_BATCH_MAX_TIMESTAMP_AT, max_timestamp);
    ls_store_u32(batch + LS_BATCH_CRC_AT, ls_batch_crc(batch, batch_bytes));
}

void ls_batch_stamp_producer(uint8_t *batch, size_t batch_bytes, bool transactional, int64_t producer_id,
                             int16_t producer_epoch, int32_t base_sequence) {
    uint16_t attributes = ls_load_u16(batch + LS_BATCH_ATTRIBUTES_AT);
    attributes = (uint16_t)(transactional ? attributes | LS_ATTRIBUTE_TRANSACTIONAL
                                          : attributes & ~LS_ATTRIBUTE_TRANSACTIONAL);
    ls_store_u16(batch + LS_BATCH_ATTRIBUTES_AT, attributes);
    ls_store_i64(batch + LS_BATCH_PRODUCER_ID_AT, producer_id);
    ls_store_u16(batch + LS_BATCH_PRODUCER_EPOCH_AT, (uint16_t)producer_epoch);
    ls_store_u32(batch + LS_BATCH_BASE_SEQUENCE_AT, (uint32_t)base_sequence);
    ls_store_u32(batch + LS_BATCH_CRC_AT, ls_batch_crc(batch, batch_bytes));
}
