/* Batches with real records, of any producer: for the tests and the fuzzer of compaction. */
#ifndef LOGSTORE_TESTS_MADE_RECORDS_H
#define LOGSTORE_TESTS_MADE_RECORDS_H

#include <string.h>

#include "logstore/bytes.h"
#include "logstore/record_batch.h"

typedef struct made_record {
    const char *key; /* NULL: none */
    const char *value;
} made_record;

typedef struct made_producer {
    int64_t id; /* -1: none */
    int16_t epoch;
    int32_t sequence;
    int16_t attributes;
} made_producer;

static const made_producer nobody = {-1, -1, -1, 0};

static inline ls_span span_of_text(const char *text) {
    return (ls_span){(const uint8_t *)text, text == NULL ? -1 : (int32_t)strlen(text)};
}

/* Writes a batch to `out` and returns its size. */
static inline size_t make_records(int64_t base_offset, made_producer producer, const made_record *records,
                                  size_t count, uint8_t *out) {
    ls_batch_builder builder = {0};
    ls_fault fault;
    ls_batch_header header;
    ls_batch_builder_init(&builder, 4096, &fault);
    for (size_t i = 0; i < count; i++) {
        ls_batch_builder_append(&builder, 1000 + base_offset + (int64_t)i, span_of_text(records[i].key),
                                span_of_text(records[i].value), NULL, 0, &fault);
    }
    ls_batch_stamp_fields fields = {
        .base_offset = base_offset,
        .attributes = producer.attributes,
        .producer_id = producer.id,
        .producer_epoch = producer.epoch,
        .base_sequence = producer.sequence,
    };
    ls_batch_builder_seal(&builder, &fields, &header);
    size_t size = builder.size_bytes;
    memcpy(out, builder.buffer, size);
    ls_batch_builder_free(&builder);
    return size;
}

/* The same for a transaction marker. */
static inline size_t make_marker(int64_t base_offset, int64_t producer_id, bool commit, uint8_t *out) {
    uint8_t key[4] = {0, 0, 0, commit ? 1 : 0};
    uint8_t value[6] = {0};
    ls_batch_builder builder = {0};
    ls_fault fault;
    ls_batch_header header;
    ls_batch_builder_init(&builder, 4096, &fault);
    ls_batch_builder_append(&builder, 1000 + base_offset, (ls_span){key, 4}, (ls_span){value, 6}, NULL, 0,
                            &fault);
    ls_batch_stamp_fields fields = {
        .base_offset = base_offset,
        .attributes = LS_ATTRIBUTE_CONTROL | LS_ATTRIBUTE_TRANSACTIONAL,
        .producer_id = producer_id,
        .base_sequence = -1,
    };
    ls_batch_builder_seal(&builder, &fields, &header);
    size_t size = builder.size_bytes;
    memcpy(out, builder.buffer, size);
    ls_batch_builder_free(&builder);
    return size;
}

#endif
