/* Runs of records whose varints in front of the key are of the same sizes: most batches are one or two runs.
 *
 * Going from record to record is all that is done one by one; what follows from the bytes found on the way is
 * computed for several records at once, and is also where the records are checked. */
#ifndef LOGSTORE_RECORD_RUNS_H
#define LOGSTORE_RECORD_RUNS_H

#include "record_parse.h"

/* The columns of one batch, from its first record on. */
typedef struct ls_batch_rows {
    int64_t *offsets;
    int64_t *timestamps;
    int32_t *key_starts;
    int32_t *key_bytes;
    int32_t *value_starts;
    int32_t *value_bytes;
    int32_t *headers_starts; /* NULL: not wanted */
    int32_t *headers_counts;
} ls_batch_rows;

/* As many records as are of one shape, from the one at *from on, whose offset delta is `i`: into row `i` and
 * those behind it. Gives the row it came to, and moves *from there; what it does not take has no verdict, its
 * rows no meaning. *same_size says whether records of a batch may be expected to be of one size: true at
 * first, and false from the first run on that ends early. */
int32_t ls_take_run(const uint8_t **from, const uint8_t *end, const uint8_t *origin, int32_t i,
                    int32_t records_count, bool *same_size, const ls_batch_rows *rows,
                    const ls_batch_header *header);

#endif
