#include <stdlib.h>

#include "logstore/varint.h"
#include "record_parse.h"

enum {
    /* Per record, besides key, value and headers: length 5, attributes 1, timestamp delta 10, offset delta 5,
     * and 5 each for the key's and the value's length and the headers' count. */
    RECORD_OVERHEAD_BYTES_MAX = 36,
    HEADER_OVERHEAD_BYTES_MAX = 10, /* of each header: two lengths */
    /* Key and value bytes for which the record's length surely takes two bytes: that is, 64 to 8191, of which
     * 6 to 31 are overhead. */
    LENGTH_TWO_BYTES_MIN = 64 - 6,
    LENGTH_TWO_BYTES_MAX = 8191 - 31,
    SHORT_BYTES_MAX = 128,
    CAPACITY_BYTES_MIN = 256,
    /* The largest batch, too: what fits into the buffer fits into the format. */
    CAPACITY_BYTES_MAX = INT32_MAX
};

/* ---- the buffer -------------------------------------------------------------------------------- */

static LS_NOINLINE ls_status reserve(ls_batch_builder *builder, uint64_t needed_bytes, ls_fault *fault) {
    if (needed_bytes <= builder->capacity_bytes) return LS_OK;
    uint64_t capacity_bytes = (uint64_t)builder->capacity_bytes * 2;
    if (capacity_bytes < CAPACITY_BYTES_MIN) capacity_bytes = CAPACITY_BYTES_MIN;
    if (capacity_bytes > CAPACITY_BYTES_MAX) capacity_bytes = CAPACITY_BYTES_MAX;
    if (capacity_bytes < needed_bytes) capacity_bytes = needed_bytes;
    uint8_t *own = builder->is_lent ? NULL : builder->buffer;
    uint8_t *buffer = realloc(own, (size_t)capacity_bytes);
    if (buffer == NULL) {
        return ls_fail(fault, LS_NO_MEMORY, "no memory for the batch being built", -1,
                       (int64_t)capacity_bytes, -1);
    }
    if (builder->is_lent) memcpy(buffer, builder->buffer, builder->size_bytes);
    builder->is_lent = 0;
    builder->buffer = buffer;
    builder->capacity_bytes = (size_t)capacity_bytes;
    return LS_OK;
}

ls_status ls_batch_builder_init(ls_batch_builder *builder, size_t capacity_bytes, ls_fault *fault) {
    ls_batch_builder fresh = {0};
    if (capacity_bytes < CAPACITY_BYTES_MIN) capacity_bytes = CAPACITY_BYTES_MIN;
    if (capacity_bytes > CAPACITY_BYTES_MAX) {
        return ls_fail(fault, LS_TOO_LARGE, "a batch cannot have that many bytes", -1, INT32_MAX,
                       capacity_bytes > INT64_MAX ? INT64_MAX : (int64_t)capacity_bytes);
    }
    ls_status status = reserve(&fresh, capacity_bytes, fault);
    if (status != LS_OK) return status;
    ls_batch_builder_reset(&fresh);
    *builder = fresh;
    return LS_OK;
}

void ls_batch_builder_free(ls_batch_builder *builder) {
    if (!builder->is_lent) free(builder->buffer);
    *builder = (ls_batch_builder){0};
}

void ls_batch_builder_lend(ls_batch_builder *builder, uint8_t *buffer, size_t capacity_bytes) {
    ls_batch_builder_free(builder);
    builder->buffer = buffer;
    builder->capacity_bytes = capacity_bytes;
    builder->is_lent = 1;
    ls_batch_builder_reset(builder);
}

void ls_batch_builder_reset(ls_batch_builder *builder) {
    builder->size_bytes = LS_BATCH_HEADER_BYTES;
    builder->base_timestamp = -1;
    builder->max_timestamp = -1;
    builder->records_count = 0;
}

ls_batch_mark ls_batch_builder_mark(const ls_batch_builder *builder) {
    return (ls_batch_mark){builder->size_bytes, builder->max_timestamp, builder->records_count};
}

void ls_batch_builder_rewind(ls_batch_builder *builder, ls_batch_mark mark) {
    builder->size_bytes = mark.size_bytes;
    builder->max_timestamp = mark.max_timestamp;
    builder->records_count = mark.records_count;
}

/* ---- one record -------------------------------------------------------------------------------- */

static LS_ALWAYS_INLINE uint64_t span_size_bytes(int32_t size_bytes) {
    return size_bytes < 0 ? 0 : (uint64_t)size_bytes;
}

/* The zigzag of a length, or of null. */
static LS_ALWAYS_INLINE uint32_t length_bits(int32_t size_bytes) {
    return size_bytes < 0 ? 1u : (uint32_t)size_bytes << 1;
}

static LS_ALWAYS_INLINE uint64_t zigzag_encode(int64_t value) {
    return ((uint64_t)value << 1) ^ (0u - ((uint64_t)value >> 63));
}

/* A varint has one byte for each 7 bits; 9/64 is close enough to 1/7 up to 64 bits. */
static LS_ALWAYS_INLINE uint64_t bits_size_bytes(uint64_t bits) {
#if defined(__GNUC__)
    unsigned highest_bit = 63u ^ (unsigned)__builtin_clzll(bits | 1u);
    return (highest_bit * 9u + 73u) / 64u;
#else
    uint64_t size_bytes = 1;
    while (bits >= 0x80u) {
        bits >>= 7;
        size_bytes++;
    }
    return size_bytes;
#endif
}

/* Bits that need exactly two bytes. */
static LS_ALWAYS_INLINE uint8_t *put_short_bits(uint8_t *at, uint64_t bits) {
    at[0] = (uint8_t)(bits | 0x80u);
    at[1] = (uint8_t)(bits >> 7);
    return at + 2;
}

static LS_ALWAYS_INLINE uint8_t *put_bits(uint8_t *at, uint64_t bits) {
    if (LS_LIKELY(bits < 0x80u)) {
        *at = (uint8_t)bits;
        return at + 1;
    }
    while (LS_UNLIKELY(bits >= 0x4000u)) {
        *at++ = (uint8_t)(bits | 0x80u);
        bits >>= 7;
    }
    return put_short_bits(at, bits);
}

/* Up to SHORT_BYTES_MAX, without a call: by blocks that overlap. Never reads outside of [from, from + size). */
static LS_ALWAYS_INLINE uint8_t *put_short_bytes(uint8_t *to, const uint8_t *from, size_t size) {
    if (size > 32) {
        memcpy(to, from, 32);
        memcpy(to + size - 32, from + size - 32, 32);
        if (size > 64) {
            memcpy(to + 32, from + 32, 32);
            memcpy(to + size - 64, from + size - 64, 32);
        }
    } else if (size >= 16) {
        memcpy(to, from, 16);
        memcpy(to + size - 16, from + size - 16, 16);
    } else if (size >= 8) {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    } else if (size >= 4) {
        memcpy(to, from, 4);
        memcpy(to + size - 4, from + size - 4, 4);
    } else if (size > 0) {
        to[0] = from[0];
        to[size / 2] = from[size / 2];
        to[size - 1] = from[size - 1];
    }
    return to + size;
}

static LS_ALWAYS_INLINE uint8_t *put_bytes(uint8_t *to, const uint8_t *from, size_t size) {
    if (LS_LIKELY(size <= SHORT_BYTES_MAX)) return put_short_bytes(to, from, size);
    memcpy(to, from, size);
    return to + size;
}

/* What a record's length says, when it has no headers. */
static LS_ALWAYS_INLINE uint64_t plain_body_bytes(uint64_t timestamp_bits, uint32_t offset_bits,
                                                  int32_t key_bytes, int32_t value_bytes) {
    return 1 + bits_size_bytes(timestamp_bits) + bits_size_bytes(offset_bits) +
           bits_size_bytes(length_bits(key_bytes)) + span_size_bytes(key_bytes) +
           bits_size_bytes(length_bits(value_bytes)) + span_size_bytes(value_bytes) + 1;
}

static LS_ALWAYS_INLINE uint64_t record_size_bytes(uint64_t body_bytes) {
    return bits_size_bytes(body_bytes << 1) + body_bytes;
}

/* What stands between a record's length and its headers' count. Spans by value: no byte that is stored can be
 * part of them, so that they stay in registers. */
static LS_ALWAYS_INLINE uint8_t *put_fields(uint8_t *at, uint64_t timestamp_bits, uint32_t offset_bits,
                                            ls_span key, ls_span value) {
    *at++ = 0; /* attributes */
    at = put_bits(at, timestamp_bits);
    at = put_bits(at, offset_bits);
    at = put_bits(at, length_bits(key.size_bytes));
    at = put_bytes(at, key.bytes, (size_t)span_size_bytes(key.size_bytes));
    at = put_bits(at, length_bits(value.size_bytes));
    return put_bytes(at, value.bytes, (size_t)span_size_bytes(value.size_bytes));
}

static ls_status refuse_timestamp(int64_t timestamp, ls_fault *fault) {
    return ls_fail(fault, LS_INVALID_ARGUMENT, "timestamp is below -1", -1, -1, timestamp);
}

static ls_status refuse_size(uint64_t size_bytes, ls_fault *fault) {
    return ls_fail(fault, LS_TOO_LARGE, "batch would be larger than the format allows", -1, INT32_MAX,
                   size_bytes > INT64_MAX ? INT64_MAX : (int64_t)size_bytes);
}

/* Between -1 and the largest timestamp lie more values than an int64 has; readers wrap as well. */
static LS_ALWAYS_INLINE int64_t timestamp_delta(int64_t timestamp, int64_t base_timestamp) {
    return (int64_t)((uint64_t)timestamp - (uint64_t)base_timestamp);
}

static LS_ALWAYS_INLINE int64_t base_timestamp_for(const ls_batch_builder *builder, int64_t timestamp) {
    return builder->records_count == 0 ? timestamp : builder->base_timestamp;
}

size_t ls_record_size_bytes_max(int32_t key_bytes, int32_t value_bytes, const ls_record_header *headers,
                                int32_t headers_count) {
    uint64_t size_bytes =
        RECORD_OVERHEAD_BYTES_MAX + span_size_bytes(key_bytes) + span_size_bytes(value_bytes);
    for (int32_t i = 0; i < headers_count; i++) {
        size_bytes += HEADER_OVERHEAD_BYTES_MAX + span_size_bytes(headers[i].key_bytes) +
                      span_size_bytes(headers[i].value_bytes);
    }
    return size_bytes > SIZE_MAX ? SIZE_MAX : (size_t)size_bytes;
}

/* Everything that the hot path does not do: headers, growth, the batch's limit, refusals. */
static LS_NOINLINE ls_status append_slowly(ls_batch_builder *builder, int64_t timestamp, ls_span key,
                                           ls_span value, const ls_record_header *headers,
                                           int32_t headers_count, ls_fault *fault) {
    if (timestamp < -1) return refuse_timestamp(timestamp, fault);
    if (headers_count < 0) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "headers count is negative", -1, 0, headers_count);
    }
    int64_t base_timestamp = base_timestamp_for(builder, timestamp);
    uint64_t timestamp_bits = zigzag_encode(timestamp_delta(timestamp, base_timestamp));
    uint32_t offset_bits = (uint32_t)builder->records_count << 1;
    uint64_t body_bytes = plain_body_bytes(timestamp_bits, offset_bits, key.size_bytes, value.size_bytes);
    uint32_t count_bits = length_bits(headers_count);
    body_bytes += bits_size_bytes(count_bits) - 1;
    for (int32_t i = 0; i < headers_count; i++) {
        if (headers[i].key_bytes < 0) {
            return ls_fail(fault, LS_INVALID_ARGUMENT, "header has no key", -1, 0, headers[i].key_bytes);
        }
        body_bytes +=
            bits_size_bytes(length_bits(headers[i].key_bytes)) + span_size_bytes(headers[i].key_bytes) +
            bits_size_bytes(length_bits(headers[i].value_bytes)) + span_size_bytes(headers[i].value_bytes);
        if (body_bytes > INT32_MAX) return refuse_size(body_bytes, fault);
    }
    uint64_t size_bytes = builder->size_bytes + record_size_bytes(body_bytes);
    if (size_bytes > INT32_MAX) return refuse_size(size_bytes, fault);
    ls_status status = reserve(builder, size_bytes, fault);
    if (status != LS_OK) return status;

    uint8_t *at = put_bits(builder->buffer + builder->size_bytes, body_bytes << 1);
    at = put_fields(at, timestamp_bits, offset_bits, key, value);
    at = put_bits(at, count_bits);
    for (int32_t i = 0; i < headers_count; i++) {
        at = put_bits(at, length_bits(headers[i].key_bytes));
        at = put_bytes(at, headers[i].key, (size_t)headers[i].key_bytes);
        at = put_bits(at, length_bits(headers[i].value_bytes));
        at = put_bytes(at, headers[i].value, (size_t)span_size_bytes(headers[i].value_bytes));
    }
    builder->size_bytes = (size_t)(at - builder->buffer);
    builder->base_timestamp = base_timestamp;
    if (timestamp > builder->max_timestamp) builder->max_timestamp = timestamp;
    builder->records_count++;
    return LS_OK;
}

/* A record without headers, where the bound says that it fits. Its length is written last: how many bytes
 * that takes is nearly always clear from the bytes alone, and working it out beforehand costs more than
 * moving the rare record that crosses from one byte to two. */
static LS_ALWAYS_INLINE void put_plain_record(ls_batch_builder *builder, int64_t timestamp, ls_span key,
                                              ls_span value) {
    int64_t base_timestamp = base_timestamp_for(builder, timestamp);
    uint64_t timestamp_bits = zigzag_encode(timestamp_delta(timestamp, base_timestamp));
    uint32_t offset_bits = (uint32_t)builder->records_count << 1;
    uint64_t bytes = span_size_bytes(key.size_bytes) + span_size_bytes(value.size_bytes);
    uint64_t length_bytes = 2;
    if (bytes < LENGTH_TWO_BYTES_MIN) {
        length_bytes = 1;
    } else if (bytes > LENGTH_TWO_BYTES_MAX) {
        length_bytes = bits_size_bytes(
            plain_body_bytes(timestamp_bits, offset_bits, key.size_bytes, value.size_bytes) << 1);
    }
    uint8_t *start = builder->buffer + builder->size_bytes;
    uint8_t *at = put_fields(start + length_bytes, timestamp_bits, offset_bits, key, value);
    *at++ = 0; /* no headers */
    uint64_t body_bytes = (uint64_t)(at - start) - length_bytes;
    if (length_bytes == 2) {
        put_short_bits(start, body_bytes << 1);
    } else {
        if (length_bytes == 1 && body_bytes >= 64) {
            memmove(start + 2, start + 1, (size_t)body_bytes);
            at++;
        }
        put_bits(start, body_bytes << 1);
    }
    builder->size_bytes = (size_t)(at - builder->buffer);
    builder->base_timestamp = base_timestamp;
    if (timestamp > builder->max_timestamp) builder->max_timestamp = timestamp;
    builder->records_count++;
}

/* Of a length that surely takes two bytes, of parts that are copied without a call: then what puts it is
 * straight stores, and saves no registers. */
static LS_ALWAYS_INLINE bool is_usual(ls_span key, ls_span value) {
    return key.size_bytes <= SHORT_BYTES_MAX && value.size_bytes <= SHORT_BYTES_MAX &&
           span_size_bytes(key.size_bytes) + span_size_bytes(value.size_bytes) >= LENGTH_TWO_BYTES_MIN;
}

static LS_NOINLINE ls_status put_unusual_record(ls_batch_builder *builder, int64_t timestamp, ls_span key,
                                                ls_span value) {
    put_plain_record(builder, timestamp, key, value);
    return LS_OK;
}

static LS_ALWAYS_INLINE ls_status put_record(ls_batch_builder *builder, int64_t timestamp, ls_span key,
                                             ls_span value) {
    if (LS_UNLIKELY(!is_usual(key, value))) return put_unusual_record(builder, timestamp, key, value);
    put_plain_record(builder, timestamp, key, value);
    return LS_OK;
}

ls_status ls_batch_builder_append(ls_batch_builder *builder, int64_t timestamp, ls_span key, ls_span value,
                                  const ls_record_header *headers, int32_t headers_count, ls_fault *fault) {
    uint64_t bound =
        RECORD_OVERHEAD_BYTES_MAX + span_size_bytes(key.size_bytes) + span_size_bytes(value.size_bytes);
    if (LS_UNLIKELY(headers_count != 0 || timestamp < -1 ||
                    builder->capacity_bytes - builder->size_bytes < bound)) {
        return append_slowly(builder, timestamp, key, value, headers, headers_count, fault);
    }
    return put_record(builder, timestamp, key, value);
}

ls_status ls_batch_builder_join(ls_batch_builder *builder, int64_t timestamp, ls_span key, ls_span value,
                                size_t limit_bytes) {
    uint64_t bound = builder->size_bytes + RECORD_OVERHEAD_BYTES_MAX + span_size_bytes(key.size_bytes) +
                     span_size_bytes(value.size_bytes);
    if (LS_UNLIKELY(bound > limit_bytes || bound > builder->capacity_bytes || timestamp < -1)) return LS_FULL;
    return put_record(builder, timestamp, key, value);
}

/* ---- many records ------------------------------------------------------------------------------ */

/* One record by its exact size, where the bound does not fit. LS_FULL: it would pass `limit_bytes`. */
static LS_NOINLINE ls_status append_within(ls_batch_builder *builder, int64_t timestamp, ls_span key,
                                           ls_span value, size_t limit_bytes, ls_fault *fault) {
    if (builder->records_count > 0) {
        uint64_t timestamp_bits = zigzag_encode(timestamp_delta(timestamp, builder->base_timestamp));
        uint64_t body_bytes = plain_body_bytes(timestamp_bits, (uint32_t)builder->records_count << 1,
                                               key.size_bytes, value.size_bytes);
        uint64_t size_bytes = builder->size_bytes + record_size_bytes(body_bytes);
        if (size_bytes > limit_bytes || size_bytes > INT32_MAX) return LS_FULL;
    }
    return append_slowly(builder, timestamp, key, value, NULL, 0, fault);
}

enum { RECORDS_AHEAD = 8, LINE_BYTES = 64 };

/* Values handed over one by one lie anywhere, and are seldom in the cache. */
static LS_ALWAYS_INLINE void fetch_bytes(const ls_span *span) {
    LS_PREFETCH(span->bytes);
    LS_PREFETCH((uintptr_t)span->bytes + LINE_BYTES);
}

ls_status ls_batch_builder_append_many(ls_batch_builder *builder, const ls_span *keys, const ls_span *values,
                                       const int64_t *timestamps, int64_t timestamp, size_t count,
                                       size_t limit_bytes, size_t *appended, ls_fault *fault) {
    const ls_span null_span = {NULL, -1};
    const ls_batch_mark mark = ls_batch_builder_mark(builder);
    /* In a local, which the bytes stored in the buffer can't be part of: its fields stay in registers. */
    ls_batch_builder own = *builder;
    size_t i = 0;
    while (i < count) {
        int64_t record_timestamp = timestamps != NULL ? timestamps[i] : timestamp;
        ls_span key = keys != NULL ? keys[i] : null_span;
        ls_span value = values[i];
        if (i + RECORDS_AHEAD < count) {
            fetch_bytes(&values[i + RECORDS_AHEAD]);
            if (keys != NULL) LS_PREFETCH(keys[i + RECORDS_AHEAD].bytes);
        }
        if (record_timestamp < -1) {
            ls_batch_builder_rewind(builder, mark);
            return refuse_timestamp(record_timestamp, fault);
        }
        size_t room_bytes = own.capacity_bytes < limit_bytes ? own.capacity_bytes : limit_bytes;
        uint64_t bound = own.size_bytes + RECORD_OVERHEAD_BYTES_MAX + span_size_bytes(key.size_bytes) +
                         span_size_bytes(value.size_bytes);
        if (LS_UNLIKELY(bound > room_bytes)) {
            *builder = own;
            ls_status status = append_within(builder, record_timestamp, key, value, limit_bytes, fault);
            if (status == LS_FULL) break;
            if (status != LS_OK) {
                ls_batch_builder_rewind(builder, mark);
                return status;
            }
            own = *builder;
        } else {
            put_plain_record(&own, record_timestamp, key, value);
        }
        i++;
    }
    *builder = own;
    *appended = i;
    return LS_OK;
}

/* ---- going on with records encoded before ------------------------------------------------------ */

static ls_status refuse_records(ls_fault *fault, int64_t position) {
    return ls_fail(fault, LS_CORRUPT, "records of an open batch", position, 0, 0);
}

ls_status ls_batch_builder_restore(ls_batch_builder *builder, int64_t base_timestamp, const uint8_t *records,
                                   size_t size_bytes, ls_fault *fault) {
    int32_t count = 0;
    for (const uint8_t *at = records, *end = records + size_bytes; at < end;) {
        int32_t length;
        const uint8_t *body = at;
        if (ls_varint32_read(&body, end, &length) != LS_OK || length <= 0 || length > end - body) {
            return refuse_records(fault, at - records);
        }
        at = body + length;
        count++;
    }
    ls_batch_header header = {.base_timestamp = base_timestamp,
                              .last_offset_delta = count - 1,
                              .records_count = count,
                              .producer_id = -1};
    int64_t max_timestamp;
    int32_t null_key_index;
    if (count == 0) return refuse_records(fault, 0);
    ls_status status =
        ls_batch_check_records(&header, records, records + size_bytes, &max_timestamp, &null_key_index, fault);
    if (status != LS_OK) return status;
    uint64_t needed_bytes = (uint64_t)LS_BATCH_HEADER_BYTES + size_bytes;
    if (needed_bytes > INT32_MAX) return refuse_size(needed_bytes, fault);
    ls_batch_builder_reset(builder);
    status = reserve(builder, needed_bytes, fault);
    if (status != LS_OK) return status;
    memcpy(builder->buffer + LS_BATCH_HEADER_BYTES, records, size_bytes);
    builder->size_bytes = (size_t)needed_bytes;
    builder->base_timestamp = base_timestamp;
    builder->max_timestamp = max_timestamp;
    builder->records_count = count;
    return LS_OK;
}

/* ---- sealing ----------------------------------------------------------------------------------- */

void ls_batch_builder_seal(ls_batch_builder *builder, const ls_batch_stamp_fields *fields,
                           ls_batch_header *out) {
    bool log_append_time = (fields->attributes & LS_ATTRIBUTE_LOG_APPEND_TIME) != 0;
    ls_batch_header header = {
        .base_offset = fields->base_offset,
        .batch_length = (int32_t)(builder->size_bytes - LS_BATCH_OVERHEAD_BYTES),
        .partition_leader_epoch = fields->partition_leader_epoch,
        .magic = LS_BATCH_MAGIC,
        .attributes = fields->attributes,
        .last_offset_delta = builder->records_count - 1,
        .base_timestamp = builder->base_timestamp,
        .max_timestamp = log_append_time ? fields->log_append_timestamp : builder->max_timestamp,
        .producer_id = fields->producer_id,
        .producer_epoch = fields->producer_epoch,
        .base_sequence = fields->base_sequence,
        .records_count = builder->records_count,
    };
    ls_batch_header_write(&header, builder->buffer);
    header.crc = ls_batch_crc(builder->buffer, builder->size_bytes);
    ls_store_u32(builder->buffer + LS_BATCH_CRC_AT, header.crc);
    *out = header;
}
