/* Any bytes as a segment's file, then as its index files: nothing may crash, loop, read outside or allocate
 * by a declared length, and what the functions say of one file must agree. The first byte chooses options. */
#include <stdbool.h>
#include <stdlib.h>

#include "../tests/faulty_file.h"
#include "logstore/bytes.h"
#include "logstore/segment.h"

enum { BASE = 1000, FIX_CRCS = 1, DEEP = 2, WITH_INDEXES = 4 };

#define INSIST(condition) \
    do { \
        if (!(condition)) abort(); \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ls_segment_options options = {.base_offset = BASE, .end_offset_max = BASE + 100000,
                                           .index_interval_bytes = 100, .offset_index_capacity = 300,
                                           .time_index_capacity = 300};

static ls_segment *open_segment(faulty_file *file) {
    ls_segment *segment = NULL;
    ls_fault fault;
    INSIST(ls_segment_create(&file->file, &options, NULL, &segment, &fault) == LS_OK);
    return segment;
}

/* A fuzzer does not hit a CRC by chance: gives whatever is framed like a batch the right one. */
static void fix_crcs(uint8_t *bytes, size_t size) {
    for (size_t at = 0; at + LS_BATCH_HEADER_BYTES <= size;) {
        int64_t length = (int64_t)ls_load_i32(bytes + at + LS_BATCH_LENGTH_AT) + LS_BATCH_OVERHEAD_BYTES;
        if (length < LS_BATCH_HEADER_BYTES || length > (int64_t)(size - at)) return;
        ls_store_u32(bytes + at + LS_BATCH_CRC_AT, ls_batch_crc(bytes + at, (size_t)length));
        at += (size_t)length;
    }
}

/* Walks over all batches by look-ups, and compares each look-up by time with the walk: unless the time index
 * may hold entries that some batch bears out without being the first that late. */
static void look_up(ls_segment *segment, const ls_recovery_report *report, bool times_are_right) {
    ls_fault fault;
    ls_batch_location found;
    int64_t position = 0;
    int64_t offset = BASE;
    int64_t max_timestamp = INT64_MIN;
    for (int64_t count = 0; count < report->batches_count; count++) {
        INSIST(ls_segment_locate(segment, offset, &found, &fault) == LS_OK);
        INSIST(found.position == position);
        if (found.header.max_timestamp > max_timestamp) {
            ls_batch_location timed;
            max_timestamp = found.header.max_timestamp;
            ls_status status = ls_segment_find_timestamp(segment, max_timestamp, BASE, &timed, &fault);
            if (times_are_right) INSIST(status == LS_OK && timed.position == position);
            else INSIST(status == LS_OK || status == LS_END);
        }
        position += ls_batch_size_bytes(&found.header);
        offset = ls_batch_last_offset(&found.header) + 1;
    }
    INSIST(position == report->valid_bytes && offset == report->next_offset);
    INSIST(ls_segment_locate(segment, offset, &found, &fault) == LS_END);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > 1 << 16) return 0;
    int choices = data[0];
    data++;
    size--;
    faulty_file file;
    faulty_file_init(&file, data, size);
    if ((choices & FIX_CRCS) != 0) fix_crcs(file.bytes, size);
    ls_segment *segment = open_segment(&file);
    ls_fault fault;
    ls_recovery_report report;
    INSIST(ls_segment_recover(segment, 0, BASE, (choices & DEEP) != 0, &report, &fault) == LS_OK);
    INSIST(report.valid_bytes <= (int64_t)size);
    INSIST((report.tail == LS_TAIL_NONE) == (report.valid_bytes == (int64_t)size));
    INSIST(report.next_valid_position < 0 || report.next_valid_position > report.valid_bytes);
    look_up(segment, &report, true);

    ls_segment *follower = open_segment(&file);
    int64_t grew;
    INSIST(ls_segment_catch_up(follower, &grew, &fault) == LS_OK);
    INSIST(grew <= report.valid_bytes && ((choices & DEEP) == 0 || grew == report.valid_bytes));
    ls_segment_free(follower);

    /* The same bytes as index files: refused, or good for look-ups that end. */
    if ((choices & WITH_INDEXES) != 0) {
        ls_offset_index *offset_index = ls_segment_offset_index(segment);
        ls_status status = ls_offset_index_load(offset_index, data, size, report.valid_bytes, &fault);
        INSIST(status == LS_OK || status == LS_CORRUPT || status == LS_FULL);
        status = ls_time_index_load(ls_segment_time_index(segment), data, size, report.next_offset, &fault);
        INSIST(status == LS_OK || status == LS_CORRUPT || status == LS_FULL);
        look_up(segment, &report, false);
    }

    /* Cut, the file is sound, and half of it again. */
    INSIST(ls_segment_truncate_bytes(segment, report.valid_bytes, report.next_offset, &fault) == LS_OK);
    ls_recovery_report again;
    INSIST(ls_segment_recover(segment, 0, BASE, (choices & DEEP) != 0, &again, &fault) == LS_OK);
    INSIST(again.tail == LS_TAIL_NONE && again.valid_bytes == report.valid_bytes &&
           again.next_offset == report.next_offset && again.batches_count == report.batches_count);
    ls_batch_location middle;
    int64_t half = BASE + (report.next_offset - BASE) / 2;
    if (ls_segment_locate(segment, half, &middle, &fault) == LS_OK) {
        INSIST(ls_segment_truncate_bytes(segment, middle.position, half, &fault) == LS_OK);
        INSIST(ls_segment_size_bytes(segment) == middle.position);
    }
    ls_segment_free(segment);
    faulty_file_free(&file);
    return 0;
}
