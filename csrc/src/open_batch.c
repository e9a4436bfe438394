#include "logstore/open_batch.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "file_map.h"
#include "logstore/bytes.h"
#include "logstore/crc32c.h"

enum { VERSION = 1, PAGE_BYTES = 4096 };

static const uint8_t magic[4] = {'L', 'S', 'O', 'B'};

/* The word that acknowledges: one store of 8 bytes, aligned, so that a process that dies leaves the old one or
 * the new one, and whatever was stored before it. */
static _Atomic uint64_t *commit_word(const ls_open_batch *open_batch) {
    return (_Atomic uint64_t *)(void *)(open_batch->map + LS_OPEN_BATCH_COMMIT_AT);
}

static void store_commit(ls_open_batch *open_batch, uint32_t records_bytes, uint32_t crc) {
    uint8_t word[8];
    uint64_t value;
    ls_store_u32(word, records_bytes);
    ls_store_u32(word + 4, crc);
    memcpy(&value, word, sizeof value);
    atomic_store_explicit(commit_word(open_batch), value, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* what is stored next is not moved before it */
}

ls_status ls_open_batch_create(const char *path, const uint8_t *topic_id, const uint8_t *boot_id,
                               size_t batch_bytes, ls_open_batch *out, ls_fault *fault) {
    size_t map_bytes = LS_OPEN_BATCH_RECORDS_AT + (batch_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    ls_file *file;
    ls_status status = ls_file_open(path, LS_FILE_CREATE, &file, fault);
    if (status != LS_OK) return status;
    uint8_t *content = calloc(1, map_bytes);
    if (content == NULL) {
        status = ls_fail(fault, LS_NO_MEMORY, "open batch", -1, (int64_t)map_bytes, 0);
    } else {
        memcpy(content + LS_OPEN_BATCH_MAGIC_AT, magic, sizeof magic);
        ls_store_u16(content + LS_OPEN_BATCH_VERSION_AT, VERSION);
        memcpy(content + LS_OPEN_BATCH_TOPIC_ID_AT, topic_id, LS_OPEN_BATCH_TOPIC_ID_BYTES);
        memcpy(content + LS_OPEN_BATCH_BOOT_ID_AT, boot_id, LS_OPEN_BATCH_BOOT_ID_BYTES);
        memcpy(content + LS_OPEN_BATCH_BOOT_ID_AGAIN_AT, boot_id, LS_OPEN_BATCH_BOOT_ID_BYTES);
        status = ls_file_write(file, 0, content, map_bytes, fault);
        free(content);
    }
    void *map = NULL;
    if (status == LS_OK) status = ls_file_map(file, map_bytes, &map, fault);
    ls_file_close(file);
    if (status != LS_OK) return status;
    *out = (ls_open_batch){.map = map, .map_bytes = map_bytes, .end_bytes = LS_BATCH_HEADER_BYTES};
    return LS_OK;
}

void ls_open_batch_free(ls_open_batch *open_batch) {
    if (open_batch->map != NULL) ls_file_unmap(open_batch->map, open_batch->map_bytes);
    *open_batch = (ls_open_batch){0};
}

void ls_open_batch_begin(ls_open_batch *open_batch, int64_t base_offset, int64_t base_timestamp) {
    uint8_t *block = open_batch->map;
    ls_open_batch_clear(open_batch); /* first: the word must not speak of another batch */
    ls_store_i64(block + LS_OPEN_BATCH_BASE_OFFSET_AT, base_offset);
    ls_store_i64(block + LS_OPEN_BATCH_BASE_TIMESTAMP_AT, base_timestamp);
    open_batch->block_crc = ls_crc32c_extend(0, block, LS_OPEN_BATCH_CRC_AT);
    ls_store_u32(block + LS_OPEN_BATCH_CRC_AT, open_batch->block_crc);
    open_batch->has_begun = 1;
}

void ls_open_batch_commit(ls_open_batch *open_batch, size_t size_bytes) {
    const uint8_t *batch = ls_open_batch_buffer(open_batch);
    open_batch->crc = ls_crc32c_extend(open_batch->crc, batch + open_batch->end_bytes,
                                       size_bytes - open_batch->end_bytes);
    open_batch->end_bytes = size_bytes;
    store_commit(open_batch, (uint32_t)(size_bytes - LS_BATCH_HEADER_BYTES),
                 open_batch->crc ^ open_batch->block_crc);
}

void ls_open_batch_clear(ls_open_batch *open_batch) {
    store_commit(open_batch, 0, 0);
    open_batch->end_bytes = LS_BATCH_HEADER_BYTES;
    open_batch->crc = 0;
    open_batch->has_begun = 0;
}

ls_status ls_open_batch_read(const uint8_t *bytes, size_t size, const uint8_t *topic_id, const uint8_t *boot_id,
                             ls_open_batch_content *out, ls_fault *fault) {
    if (size < LS_OPEN_BATCH_COMMIT_AT + 8) return LS_END; /* its writer did not get to map it */
    uint32_t records_bytes = ls_load_u32(bytes + LS_OPEN_BATCH_COMMIT_AT);
    uint32_t stored = ls_load_u32(bytes + LS_OPEN_BATCH_COMMIT_AT + 4);
    if (records_bytes == 0 && stored == 0) return LS_END;
    /* Before anything is called damage: what this run of the system has not written may be anything. */
    if (memcmp(bytes + LS_OPEN_BATCH_BOOT_ID_AT, boot_id, LS_OPEN_BATCH_BOOT_ID_BYTES) != 0 &&
        memcmp(bytes + LS_OPEN_BATCH_BOOT_ID_AGAIN_AT, boot_id, LS_OPEN_BATCH_BOOT_ID_BYTES) != 0) {
        return LS_END;
    }
    uint32_t block_crc = ls_crc32c_extend(0, bytes, LS_OPEN_BATCH_CRC_AT);
    if (block_crc != ls_load_u32(bytes + LS_OPEN_BATCH_CRC_AT)) {
        return ls_fail(fault, LS_CORRUPT, "CRC of the block does not match", LS_OPEN_BATCH_CRC_AT,
                       ls_load_u32(bytes + LS_OPEN_BATCH_CRC_AT), block_crc);
    }
    if (memcmp(bytes + LS_OPEN_BATCH_MAGIC_AT, magic, sizeof magic) != 0 ||
        ls_load_u16(bytes + LS_OPEN_BATCH_VERSION_AT) != VERSION) {
        return ls_fail(fault, LS_UNSUPPORTED, "version of an open batch", LS_OPEN_BATCH_VERSION_AT, VERSION,
                       ls_load_u16(bytes + LS_OPEN_BATCH_VERSION_AT));
    }
    if (memcmp(bytes + LS_OPEN_BATCH_TOPIC_ID_AT, topic_id, LS_OPEN_BATCH_TOPIC_ID_BYTES) != 0 ||
        memcmp(bytes + LS_OPEN_BATCH_BOOT_ID_AT, boot_id, LS_OPEN_BATCH_BOOT_ID_BYTES) != 0) {
        return LS_END;
    }
    if (size < LS_OPEN_BATCH_RECORDS_AT || records_bytes > size - LS_OPEN_BATCH_RECORDS_AT) {
        return ls_fail(fault, LS_TORN, "open batch is cut off", LS_OPEN_BATCH_COMMIT_AT,
                       (int64_t)LS_OPEN_BATCH_RECORDS_AT + records_bytes, (int64_t)size);
    }
    const uint8_t *records = bytes + LS_OPEN_BATCH_RECORDS_AT;
    uint32_t crc = ls_crc32c_extend(0, records, records_bytes) ^ block_crc;
    if (records_bytes == 0 || crc != stored) {
        return ls_fail(fault, LS_CORRUPT, "CRC of the records does not match", LS_OPEN_BATCH_COMMIT_AT, stored, crc);
    }
    *out = (ls_open_batch_content){
        .records = records,
        .records_bytes = records_bytes,
        .base_offset = ls_load_i64(bytes + LS_OPEN_BATCH_BASE_OFFSET_AT),
        .base_timestamp = ls_load_i64(bytes + LS_OPEN_BATCH_BASE_TIMESTAMP_AT),
    };
    return LS_OK;
}
