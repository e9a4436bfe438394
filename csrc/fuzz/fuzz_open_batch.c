/* Any bytes as the file of an open batch: what is read of it lies inside, and has the CRC that it says. The first byte chooses
 * options; then come the block and the commit word, then records, without the zeros between. */
#include <stdlib.h>
#include <string.h>

#include "logstore/bytes.h"
#include "logstore/crc32c.h"
#include "logstore/open_batch.h"

enum { FIX_BLOCK = 1, FIX_VERSION = 2, FIX_RECORDS = 4, CUT = 8, HEAD_BYTES = LS_OPEN_BATCH_COMMIT_AT + 8 };

#define INSIST(condition) \
    do { \
        if (!(condition)) abort(); \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t topic_id[LS_OPEN_BATCH_TOPIC_ID_BYTES] = {0};
    static const uint8_t boot_id[LS_OPEN_BATCH_BOOT_ID_BYTES] = {0};
    if (size == 0) return 0;
    uint8_t choice = *data++;
    size--;
    size_t head_bytes = size < HEAD_BYTES ? size : HEAD_BYTES;
    size_t records_bytes = size - head_bytes;
    size_t total_bytes = records_bytes > 0 ? LS_OPEN_BATCH_RECORDS_AT + records_bytes : head_bytes;
    if ((choice & CUT) != 0 && records_bytes > 0) total_bytes = HEAD_BYTES + records_bytes % 64;
    uint8_t *bytes = calloc(1, total_bytes > 0 ? total_bytes : 1); /* as large as the file, so that a read past its end is seen */
    if (bytes == NULL) return 0;
    memcpy(bytes, data, head_bytes);
    if (total_bytes > LS_OPEN_BATCH_RECORDS_AT)
        memcpy(bytes + LS_OPEN_BATCH_RECORDS_AT, data + head_bytes, total_bytes - LS_OPEN_BATCH_RECORDS_AT);
    if (head_bytes == HEAD_BYTES) {
        if ((choice & FIX_VERSION) != 0) {
            memcpy(bytes, "LSOB", 4);
            ls_store_i32(bytes + LS_OPEN_BATCH_VERSION_AT, 1 << 16);
            memset(bytes + LS_OPEN_BATCH_TOPIC_ID_AT, 0, LS_OPEN_BATCH_BASE_OFFSET_AT - LS_OPEN_BATCH_TOPIC_ID_AT);
        }
        uint32_t block_crc = ls_crc32c_extend(0, bytes, LS_OPEN_BATCH_CRC_AT);
        if ((choice & FIX_BLOCK) != 0) ls_store_u32(bytes + LS_OPEN_BATCH_CRC_AT, block_crc);
        uint32_t declared = ls_load_u32(bytes + LS_OPEN_BATCH_COMMIT_AT);
        if ((choice & FIX_RECORDS) != 0 && total_bytes > LS_OPEN_BATCH_RECORDS_AT) {
            declared %= (uint32_t)(total_bytes - LS_OPEN_BATCH_RECORDS_AT) + 1;
            ls_store_u32(bytes + LS_OPEN_BATCH_COMMIT_AT, declared);
            ls_store_u32(bytes + LS_OPEN_BATCH_COMMIT_AT + 4,
                         ls_crc32c_extend(0, bytes + LS_OPEN_BATCH_RECORDS_AT, declared) ^ block_crc);
        }
    }
    ls_open_batch_content content;
    ls_fault fault;
    ls_status status = ls_open_batch_read(bytes, total_bytes, topic_id, boot_id, &content, &fault);
    INSIST(status == LS_OK || status == LS_END || status == LS_CORRUPT || status == LS_TORN || status == LS_UNSUPPORTED);
    if (status == LS_OK) {
        INSIST(content.records == bytes + LS_OPEN_BATCH_RECORDS_AT && content.records_bytes > 0);
        INSIST(content.records_bytes <= total_bytes - LS_OPEN_BATCH_RECORDS_AT);
        INSIST((ls_crc32c_extend(0, content.records, content.records_bytes) ^ ls_load_u32(bytes + LS_OPEN_BATCH_CRC_AT)) ==
               ls_load_u32(bytes + LS_OPEN_BATCH_COMMIT_AT + 4));
    }
    free(bytes);
    return 0;
}
