/* Any bytes as a segment's batches: both passes and an erasure must not crash, read outside or loop, and what
 * they write must be valid batches that rise, with no more records than came. CRCs are mended first, as a
 * fuzzer hits none. */
#include <stdlib.h>
#include <string.h>

#include "logstore/bytes.h"
#include "logstore/compaction.h"

enum { END_OFFSET = 1 << 20, MEMORY_BYTES = 4096 };

#define INSIST(condition) \
    do { \
        if (!(condition)) abort(); \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t secret[LS_KEY_SECRET_BYTES];

static void fix_crcs(uint8_t *bytes, size_t size) {
    for (size_t at = 0; at + LS_BATCH_HEADER_BYTES <= size;) {
        int64_t length = (int64_t)ls_load_i32(bytes + at + LS_BATCH_LENGTH_AT) + LS_BATCH_OVERHEAD_BYTES;
        if (length < LS_BATCH_HEADER_BYTES || length > (int64_t)(size - at)) return;
        ls_store_u32(bytes + at + LS_BATCH_CRC_AT, ls_batch_crc(bytes + at, (size_t)length));
        at += (size_t)length;
    }
}

static void check_output(const ls_compactor *compactor) {
    size_t size;
    const uint8_t *bytes = ls_compactor_output(compactor, &size);
    int64_t next_offset = 0;
    for (size_t at = 0; at < size;) {
        ls_batch_header header;
        ls_fault fault;
        INSIST(ls_batch_validate(bytes + at, bytes + size, 0, &header, &fault) == LS_OK);
        INSIST(header.base_offset >= next_offset);
        next_offset = ls_batch_last_offset(&header) + 1;
        at += (size_t)ls_batch_size_bytes(&header);
    }
    const ls_compaction_counts *counts = ls_compactor_counts(compactor);
    INSIST(counts->records_kept <= counts->records_read);
}

static void run(const ls_compaction_rules *rules, const uint8_t *bytes, size_t size) {
    ls_transaction_history history = {0};
    ls_key_offset_map *map = NULL;
    ls_compactor *compactor = NULL;
    ls_fault fault;
    for (size_t at = 0; at < size;) {
        ls_batch_header header;
        if (ls_batch_validate(bytes + at, bytes + size, 0, &header, &fault) != LS_OK) break;
        INSIST(ls_transaction_history_add(&history, bytes + at, &header, &fault) == LS_OK);
        at += (size_t)ls_batch_size_bytes(&header);
    }
    ls_transaction_history_finish(&history);
    INSIST(ls_key_offset_map_create(MEMORY_BYTES, secret, &map, &fault) == LS_OK);
    INSIST(ls_compactor_create(rules, map, &compactor, &fault) == LS_OK);
    ls_status status = LS_OK;
    for (int pass = 0; pass < 2 && status == LS_OK; pass++) {
        size_t at = 0;
        bool goes_on = rules->erased_key == NULL || pass == 1;
        ls_compactor_start_pass(compactor);
        ls_compactor_start_segment(compactor, 0, END_OFFSET);
        while (goes_on) {
            ls_compaction_step step = LS_COMPACTION_MORE;
            size_t consumed = 0;
            size_t wanted;
            status = (pass == 0 ? ls_compaction_map : ls_compaction_rewrite)(
                compactor, bytes + at, bytes + size, (int64_t)at, &step, &consumed, &wanted, &fault);
            if (status != LS_OK) break;
            INSIST(consumed <= size - at);
            at += consumed;
            if (step == LS_COMPACTION_HISTORY) {
                ls_compactor_set_history(compactor, &history);
            } else if (step == LS_COMPACTION_PAYLOAD) {
                /* The "codec": the payload as it stands. */
                ls_batch_header header;
                INSIST(ls_batch_header_read(bytes + at, bytes + size, 0, &header, &fault) == LS_OK);
                const uint8_t *payload = bytes + at + LS_BATCH_HEADER_BYTES;
                const uint8_t *end = bytes + at + ls_batch_size_bytes(&header);
                status = pass == 0
                             ? ls_compaction_map_payload(compactor, payload, end, &step, &fault)
                             : ls_compaction_rewrite_payload(compactor, bytes + at, payload, end, &step,
                                                             &fault);
                if (status != LS_OK) break;
                if (step == LS_COMPACTION_COMPRESS) {
                    size_t pending_size;
                    const uint8_t *pending = ls_compactor_pending(compactor, &header, &pending_size);
                    INSIST(ls_compaction_rewrite_compressed(compactor, pending, pending_size,
                                                            &fault) == LS_OK);
                }
                if (step == LS_COMPACTION_FULL) break;
                at += (size_t)ls_batch_size_bytes(&header);
            } else {
                goes_on = step == LS_COMPACTION_OUTPUT;
                if (goes_on) {
                    check_output(compactor);
                    ls_compactor_clear_output(compactor);
                }
            }
        }
        if (pass == 0 && !goes_on) ls_compactor_map_ended(compactor, END_OFFSET);
    }
    /* A pass that failed ends the compaction: what it has written by then is thrown away, and has no last batch. */
    if (status == LS_OK) INSIST(ls_compactor_keep_last(compactor, &fault) == LS_OK || size == 0);
    check_output(compactor);
    ls_compactor_free(compactor);
    ls_key_offset_map_free(map);
    ls_transaction_history_free(&history);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    uint8_t *bytes = malloc(size);
    INSIST(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    fix_crcs(bytes, size - 1);
    const ls_compaction_rules compaction = {
        .first_dirty_offset = data[0] & 7, .first_uncleanable_offset = 1 << (data[0] >> 4), .now_ms = 5000,
        .delete_retention_ms = 100};
    const ls_compaction_rules erasure = {.erased_key = (const uint8_t *)"a", .erased_key_bytes = 1};
    run(&compaction, bytes, size - 1);
    run(&erasure, bytes, size - 1);
    free(bytes);
    return 0;
}
