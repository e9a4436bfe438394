#include "logstore/varint.h"

/* gcc would gather a record's lengths in a vector register to save three stores, which costs 2 of 12 ns. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-slp-vectorize")
#endif
#include "record_parse.h"

/* ---- the careful parser: decides, and names the broken rule ------------------------------------ */

/* What a careful parser knows beyond the byte it stands at: where the buffer starts, for positions. */
typedef struct bounded {
    const uint8_t *at;
    const uint8_t *end;
    const uint8_t *start;
} bounded;

static int64_t batch_position(const uint8_t *at, const uint8_t *start) {
    return LS_BATCH_HEADER_BYTES + (at - start);
}

static ls_status corrupt(const bounded *in, const char *reason, int64_t expected, int64_t actual,
                         ls_fault *fault) {
    return ls_fail(fault, LS_CORRUPT, reason, batch_position(in->at, in->start), expected, actual);
}

static ls_status read_varint32(bounded *in, int32_t *value, ls_fault *fault) {
    ls_status status = ls_varint32_read(&in->at, in->end, value);
    if (status == LS_OK) return LS_OK;
    return corrupt(in, status == LS_TORN ? "varint is cut off" : "varint is too long", LS_VARINT32_BYTES_MAX,
                   in->end - in->at, fault);
}

static ls_status read_varint64(bounded *in, int64_t *value, ls_fault *fault) {
    ls_status status = ls_varint64_read(&in->at, in->end, value);
    if (status == LS_OK) return LS_OK;
    return corrupt(in, status == LS_TORN ? "varint is cut off" : "varint is too long", LS_VARINT64_BYTES_MAX,
                   in->end - in->at, fault);
}

/* A length and that many bytes; negative lengths are null where null is allowed. */
static ls_status read_bytes(bounded *in, bool nullable, const char *beyond, const uint8_t **bytes,
                            int32_t *size_bytes, ls_fault *fault) {
    const bounded before = *in;
    int32_t length;
    ls_status status = read_varint32(in, &length, fault);
    if (status != LS_OK) return status;
    *bytes = in->at;
    if (length < 0) {
        if (!nullable) return corrupt(&before, "header key is null", 0, length, fault);
        *size_bytes = -1;
        return LS_OK;
    }
    if (length > in->end - in->at) return corrupt(&before, beyond, in->end - in->at, length, fault);
    in->at += length;
    *size_bytes = length;
    return LS_OK;
}

static ls_status read_record_header(bounded *in, ls_record_header *out, ls_fault *fault) {
    ls_status status =
        read_bytes(in, false, "header key is longer than its record", &out->key, &out->key_bytes, fault);
    if (status != LS_OK) return status;
    return read_bytes(in, true, "header value is longer than its record", &out->value, &out->value_bytes,
                      fault);
}

LS_NOINLINE
ls_status ls_record_parse_careful(const uint8_t *at, const uint8_t *end, const uint8_t *start,
                                  ls_record_parts *out, ls_fault *fault) {
    bounded in = {at, end, start};
    if (at == end) return corrupt(&in, "records are missing", 1, 0, fault);
    int32_t length;
    ls_status status = read_varint32(&in, &length, fault);
    if (status != LS_OK) return status;
    if (length < 0 || length > in.end - in.at) {
        in.at = at;
        return corrupt(&in, length < 0 ? "record length is negative" : "record is longer than its batch",
                       end - at, length, fault);
    }
    in.end = in.at + length;
    if (length == 0) return corrupt(&in, "record is empty", 1, 0, fault);
    in.at++; /* attributes, which mean nothing */

    ls_record_parts parts;
    parts.next = in.end;
    if ((status = read_varint64(&in, &parts.timestamp_delta, fault)) != LS_OK) return status;
    if ((status = read_varint32(&in, &parts.offset_delta, fault)) != LS_OK) return status;
    status = read_bytes(&in, true, "key is longer than its record", &parts.key, &parts.key_bytes, fault);
    if (status != LS_OK) return status;
    status =
        read_bytes(&in, true, "value is longer than its record", &parts.value, &parts.value_bytes, fault);
    if (status != LS_OK) return status;

    const bounded before_count = in;
    if ((status = read_varint32(&in, &parts.headers_count, fault)) != LS_OK) return status;
    parts.headers = in.at;
    if (parts.headers_count < 0 || parts.headers_count > in.end - in.at) {
        return corrupt(&before_count, "headers count is impossible", in.end - in.at, parts.headers_count,
                       fault);
    }
    for (int32_t i = 0; i < parts.headers_count; i++) {
        ls_record_header header;
        if ((status = read_record_header(&in, &header, fault)) != LS_OK) return status;
    }
    if (in.at != in.end) {
        return corrupt(&in, "bytes are left over inside a record", 0, in.end - in.at, fault);
    }
    *out = parts;
    return LS_OK;
}

/* Every length here is read byte by byte, because the last one of a batch ends with the buffer. */
bool ls_record_headers_fill(const uint8_t *at, const uint8_t *end, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        if (end - at < 2) return false;
        uint32_t bits = *at++;
        if (bits >= 0x80u) {
            bits = (bits & 0x7fu) | (uint32_t)*at++ << 7;
            if (bits >= 0x4000u) return false;
        }
        if ((bits & 1u) != 0 || end - at < (ptrdiff_t)(bits >> 1) + 1) return false;
        at += bits >> 1;

        bits = *at++;
        if (bits >= 0x80u) {
            if (at == end) return false;
            bits = (bits & 0x7fu) | (uint32_t)*at++ << 7;
            if (bits >= 0x4000u) return false;
        }
        if ((bits & 1u) != 0) continue;
        if (end - at < (ptrdiff_t)(bits >> 1)) return false;
        at += bits >> 1;
    }
    return at == end;
}

ls_status ls_record_header_next(const uint8_t **at, const uint8_t *end, ls_record_header *out,
                                ls_fault *fault) {
    bounded in = {*at, end, *at};
    ls_record_header header;
    ls_status status = read_record_header(&in, &header, fault);
    if (status != LS_OK) {
        fault->position = -1; /* the caller knows which record this is; a header alone does not */
        return status;
    }
    *at = in.at;
    *out = header;
    return LS_OK;
}

/* ---- the iterator ------------------------------------------------------------------------------ */

void ls_record_iterator_init(ls_record_iterator *iterator, const ls_batch_header *header,
                             const uint8_t *payload, const uint8_t *payload_end) {
    int codec = ls_batch_codec(header);
    /* Nothing in reach sends the first call to the careful path, which knows why. */
    bool nothing_to_read = header->records_count == 0 || codec > LS_CODEC_ZSTD;
    iterator->start = payload;
    iterator->at = payload;
    iterator->end = nothing_to_read ? payload : payload_end;
    iterator->base_offset = header->base_offset;
    iterator->base_timestamp = header->base_timestamp;
    iterator->log_append_timestamp = header->max_timestamp;
    iterator->last_offset_delta = header->last_offset_delta;
    iterator->previous_delta = -1;
    iterator->remaining = header->records_count;
    iterator->log_append_time = (header->attributes & LS_ATTRIBUTE_LOG_APPEND_TIME) != 0;
    iterator->codec = (int8_t)codec;
}

/* What is not a record: the end, and what the header alone makes impossible. */
static LS_NOINLINE ls_status end_iteration(const ls_record_iterator *iterator, ls_fault *fault) {
    const bounded in = {iterator->at, iterator->end, iterator->start};
    if (iterator->remaining < 0) {
        return corrupt(&in, "records count is negative", 0, iterator->remaining, fault);
    }
    if (iterator->at != iterator->end) {
        return corrupt(&in, "bytes are left over after the last record", 0, in.end - in.at, fault);
    }
    return LS_END;
}

static LS_NOINLINE ls_status refuse_offset_delta(const ls_record_iterator *iterator, int32_t delta,
                                                 ls_fault *fault) {
    const bounded in = {iterator->at, iterator->end, iterator->start};
    if (delta > iterator->last_offset_delta) {
        return corrupt(&in, "offset delta is past the batch's last", iterator->last_offset_delta, delta,
                       fault);
    }
    return corrupt(&in, "offset deltas do not rise", (int64_t)iterator->previous_delta + 1, delta, fault);
}

static LS_ALWAYS_INLINE ls_status take_record(ls_record_iterator *iterator, const ls_record_parts *parts,
                                              ls_record *out, ls_fault *fault) {
    int32_t delta = parts->offset_delta;
    if (LS_UNLIKELY(delta <= iterator->previous_delta || delta > iterator->last_offset_delta)) {
        return refuse_offset_delta(iterator, delta, fault);
    }
    out->offset = ls_add_wrapping(iterator->base_offset, parts->offset_delta);
    out->timestamp = iterator->log_append_time
                         ? iterator->log_append_timestamp
                         : ls_add_wrapping(iterator->base_timestamp, parts->timestamp_delta);
    out->key = parts->key;
    out->value = parts->value;
    out->headers = parts->headers;
    out->key_bytes = parts->key_bytes;
    out->value_bytes = parts->value_bytes;
    out->headers_count = parts->headers_count;
    out->headers_bytes = (int32_t)(parts->next - parts->headers);
    iterator->at = parts->next;
    iterator->previous_delta = parts->offset_delta;
    iterator->remaining--;
    return LS_OK;
}

static LS_NOINLINE ls_status next_carefully(ls_record_iterator *iterator, ls_record *out, ls_fault *fault) {
    if (iterator->codec > LS_CODEC_ZSTD) {
        return ls_fail(fault, LS_CORRUPT, "codec is unknown", LS_BATCH_ATTRIBUTES_AT, LS_CODEC_ZSTD,
                       iterator->codec);
    }
    ls_record_parts parts;
    ls_status status = ls_record_parse_careful(iterator->at, iterator->end, iterator->start, &parts, fault);
    if (status != LS_OK) return status;
    return take_record(iterator, &parts, out, fault);
}

ls_status ls_record_iterator_next(ls_record_iterator *iterator, ls_record *out, ls_fault *fault) {
    if (LS_UNLIKELY(iterator->remaining <= 0)) return end_iteration(iterator, fault);
    ls_record_parts parts;
    if (LS_UNLIKELY(!ls_record_parse_fast(iterator->at, iterator->end, &parts))) {
        return next_carefully(iterator, out, fault);
    }
    return take_record(iterator, &parts, out, fault);
}

/* ---- a leader's check -------------------------------------------------------------------------- */

ls_status ls_batch_check_records(const ls_batch_header *header, const uint8_t *payload,
                                 const uint8_t *payload_end, int64_t *max_timestamp, int32_t *null_key_index,
                                 ls_fault *fault) {
    if (header->records_count <= 0) {
        return ls_fail(fault, LS_CORRUPT, "batch holds no records", LS_BATCH_RECORDS_COUNT_AT, 1,
                       header->records_count);
    }
    if (header->records_count != (int64_t)header->last_offset_delta + 1) {
        return ls_fail(fault, LS_CORRUPT, "records count is not the number of offsets",
                       LS_BATCH_RECORDS_COUNT_AT, (int64_t)header->last_offset_delta + 1,
                       header->records_count);
    }
    ls_record_iterator iterator;
    ls_record_iterator_init(&iterator, header, payload, payload_end);
    int64_t largest = -1;
    int32_t null_key = -1;
    for (int32_t i = 0; i < header->records_count; i++) {
        const bounded in = {iterator.at, payload_end, payload};
        ls_record record;
        ls_status status = ls_record_iterator_next(&iterator, &record, fault);
        if (status != LS_OK) return status;
        if (iterator.previous_delta != i) {
            return corrupt(&in, "offset deltas are not 0, 1, 2, ...", i, iterator.previous_delta, fault);
        }
        if (record.timestamp < -1) return corrupt(&in, "timestamp is below -1", -1, record.timestamp, fault);
        if (record.timestamp > largest) largest = record.timestamp;
        if (record.key_bytes < 0 && null_key < 0) null_key = i;
    }
    ls_status status = end_iteration(&iterator, fault);
    if (status != LS_END) return status;
    *max_timestamp = largest;
    *null_key_index = null_key;
    return LS_OK;
}
