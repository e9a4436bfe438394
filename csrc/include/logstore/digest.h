/* The digest of a segment: 128 bits over the headers of all its batches, in order. A header holds the CRC of
 * the rest of its batch, so the digest stands for every byte of the file, costs a few nanoseconds a batch,
 * and can be checked by reading headers alone. Also for what the CRC does not cover: base offset, length,
 * leader epoch, magic. It tells files apart that went to the wrong place by accident; it is no defence
 * against somebody who forges them. docs/format/segment-digests.md has the arithmetic. Pure functions. */
#ifndef LOGSTORE_DIGEST_H
#define LOGSTORE_DIGEST_H

#include <stdint.h>

#include "logstore/record_batch.h"

typedef struct ls_digest {
    uint64_t high;
    uint64_t low;
} ls_digest; /* of no batches: zeros */

enum { LS_DIGEST_BYTES = 16 };

/* Takes the next batch's header in. */
void ls_digest_extend(ls_digest *digest, const ls_batch_header *header);

/* The digest as it is stored: high, then low, big-endian. */
void ls_digest_write(const ls_digest *digest, uint8_t *out);

#endif
