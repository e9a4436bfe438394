/* A segment: one .log file and its two indexes in memory (log-format, sections 3 and 4).
 *
 * Threads: one writer at a time (the caller's lock) may call append, recover, truncate, seal; any number of
 * readers may call size, locate, read, find_timestamp meanwhile. Publication order of an append: bytes, index
 * entries, size (release); a reader loads size first (acquire) and never looks past it.
 *
 * The index files are caches written by the caller (ls_*_index_encode) when it suits: they may lag behind
 * the log, never lead it. */
#ifndef LOGSTORE_SEGMENT_H
#define LOGSTORE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logstore/digest.h"
#include "logstore/file.h"
#include "logstore/file_pool.h"
#include "logstore/offset_index.h"
#include "logstore/record_batch.h"
#include "logstore/status.h"
#include "logstore/time_index.h"

typedef struct ls_segment ls_segment;

typedef struct ls_segment_options {
    int64_t base_offset;
    int64_t end_offset_max; /* exclusive bound of offsets inside: the next segment's base, or INT64_MAX */
    int32_t index_interval_bytes; /* index.interval.bytes */
    size_t offset_index_capacity; /* entries */
    size_t time_index_capacity;
    int is_contiguous; /* no offsets are missing, from base_offset on: a gap is damage. See ls_segment_allow_gaps */
} ls_segment_options;

/* What a segment knows about its content. All but size_bytes belong to the writer's side. */
typedef struct ls_segment_state {
    int64_t size_bytes;           /* valid bytes: the published end */
    int64_t next_offset;          /* last offset of the last batch + 1; base offset when empty */
    int64_t max_timestamp;        /* -1: none */
    int64_t max_timestamp_offset; /* last offset of the earliest batch that has it; -1: none */
    int64_t first_batch_max_timestamp; /* for segment.ms; -1: empty or unknown */
    int64_t bytes_since_last_entry;
    int32_t last_leader_epoch;    /* -1: none */
    int64_t digested_bytes; /* the digest is of so many bytes from the start; it goes on where that is the size */
    ls_digest digest;
} ls_segment_state;

/* Takes ownership of log on success. State: empty, or as given (a reopened segment; bytes_since_last_entry is
 * set to 0). */
ls_status ls_segment_create(ls_file *log, const ls_segment_options *options, const ls_segment_state *state,
                            ls_segment **out, ls_fault *fault);
void ls_segment_free(ls_segment *segment); /* closes the file; NULL is fine */

int64_t ls_segment_size_bytes(const ls_segment *segment); /* acquire load */
void ls_segment_get_state(const ls_segment *segment, ls_segment_state *out);
/* The digest of all batches; 0 where it is not known, as for a segment that was opened and not scanned from its
 * start. Writer only. */
int ls_segment_digest(const ls_segment *segment, ls_digest *out);
int64_t ls_segment_base_offset(const ls_segment *segment);
ls_file *ls_segment_log_file(ls_segment *segment);
/* The log's file becomes one of a pool, as by ls_file_pool_take; before anybody else uses the segment. */
ls_status ls_segment_share_descriptor(ls_segment *segment, ls_file_pool *pool, const char *path, int mode,
                                      bool is_synced, ls_fault *fault);
/* A batch with a gap before it is about to be appended: from now on gaps are no damage. Writer only. */
void ls_segment_allow_gaps(ls_segment *segment);
ls_offset_index *ls_segment_offset_index(ls_segment *segment);
ls_time_index *ls_segment_time_index(ls_segment *segment);

/* Whether a batch of this size, largest timestamp and last offset must go to a new segment (4.1; the time
 * rule is in terms of the segment's first batch; created_ms is used where that rule says creation time). An
 * empty segment rolls for an offset that does not fit only: for any other reason the next one would be no
 * better. */
typedef struct ls_roll_policy {
    int64_t segment_bytes;
    int64_t segment_ms; /* already less the jitter */
    int64_t created_ms;
} ls_roll_policy;
int ls_segment_should_roll(const ls_segment *segment, const ls_roll_policy *policy, int64_t batch_bytes,
                           int64_t max_timestamp, int64_t last_offset, int64_t now_ms);

/* Appends one whole, sealed and validated batch in one write, then the index entries if they are due (per
 * batch, section 3.4), then publishes. header must be the batch's own. LS_INVALID_ARGUMENT: base offset below
 * next_offset, last offset at or past end_offset_max, a size that is not the header's, or a file with a tail
 * that was not cut. LS_FULL: an entry is due and an index is full, the offset does not fit, or the segment
 * would pass 2^31-1 bytes: roll first. LS_TOO_LARGE: not even an empty segment could take it. LS_DISK_FULL /
 * LS_IO: nothing is published and the file was cut back to its old size; if even that failed, fault->expected
 * is 1 (the file has a tail that recovery must cut) instead of 0. LS_NO_DESCRIPTOR: nothing was done. */
ls_status ls_segment_append(ls_segment *segment, const uint8_t *batch, size_t batch_bytes,
                            const ls_batch_header *header, ls_fault *fault);

/* The same for whole, sealed and validated batches, one behind the other, in one write: all are published, or none. LS_FULL
 * also where there may be too few index entries for them: they may fit one by one. */
ls_status ls_segment_append_run(ls_segment *segment, const uint8_t *batches, size_t bytes, ls_fault *fault);

/* Has the processor fetch what an append is about to need, all at once. */
void ls_segment_expect_append(const ls_segment *segment);

/* From now on appends prepare the file ahead of its end, up to limit_bytes; 0: no longer. Small ones fill it with zeros:
 * fdatasync of a write into such a file has data to write alone, and no new size and blocks. Zeros are no batch: whatever
 * reads the file takes them for its end. Writes of 32 KiB and more, where writing each byte twice costs more than that saves,
 * have it given blocks instead, and its size stays what it is. A disk that is too full for either ends it, without an error.
 * Any thread. */
void ls_segment_fill_ahead(ls_segment *segment, int64_t limit_bytes);
/* Has the disk begin with the batches from a position on, where the file has zeros or blocks ahead (one that grows would have
 * to be given its blocks first, which gains nothing): for one who is going to append more before a flush. A position past the
 * end is one in the segment before, and counts as 0. Writer only. */
void ls_segment_write_back(ls_segment *segment, int64_t position);
/* How many zeros that appends have written stand behind the end. Writer only. */
int64_t ls_segment_filled_bytes(const ls_segment *segment);
/* For how many bytes behind the end it was given blocks. Writer only. */
int64_t ls_segment_reserved_bytes(const ls_segment *segment);
/* Takes zeros and blocks away, and ends preparing. Writer only. After a failure they may still be there, which harms
 * nobody but, for zeros, a segment that is sealed. */
ls_status ls_segment_cut_ahead(ls_segment *segment, ls_fault *fault);

/* Appends whole, validated batches in one write, as many as fit: *appended says how many bytes that are; less
 * than size with LS_FULL. For a segment that nobody reads yet: after another failure it is only good to be
 * freed. */
ls_status ls_segment_append_batches(ls_segment *segment, const uint8_t *batches, size_t size,
                                    size_t *appended, ls_fault *fault);

/* The closing time index entry, when the segment becomes inactive or is closed. Idempotent. */
void ls_segment_close_time_index(ls_segment *segment);

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct ls_batch_location {
    int64_t position;
    ls_batch_header header;
} ls_batch_location;

/* The first batch whose last offset is >= offset, below the published size: index, then headers, each
 * structurally checked (ascending offsets, within the segment). A damaged index entry (no such batch at its
 * position) costs a scan from 0, never a wrong answer. LS_END: no such batch in this segment. LS_CORRUPT /
 * LS_TORN (an incomplete batch below the published size) with the position. */
ls_status ls_segment_locate(ls_segment *segment, int64_t offset, ls_batch_location *out, ls_fault *fault);

/* Where the index says that the batch that holds `offset`, or one before it, starts. */
int64_t ls_segment_find_entry(const ls_segment *segment, int64_t offset);

/* Where one read is likely to find a whole batch: what `ls_segment_fetch` reads. */
typedef struct ls_fetch_plan {
    int64_t position;
    size_t size_bytes;     /* of the read; 0: nothing is there */
    size_t room_bytes;     /* for it and for the batch, at most LS_FETCH_BYTES_MAX */
    int64_t after_offset;  /* what stands there begins above it; -1: anywhere */
    int64_t last_offset;   /* of the batch that stands just there, by the index; -1: not known */
    int64_t from_position; /* of the index entry before the batch, whatever is guessed */
    int64_t upto_position; /* of the entry at or behind it, or the segment's size */
} ls_fetch_plan;

enum { LS_FETCH_BYTES_MAX = 1 << 20 };

/* For the batch that holds `offset`. Asks the index alone, which gives a range; `expect_at_entry` guesses that the batch
 * is the last one of it, as where batches are large. */
void ls_segment_plan_fetch(ls_segment *segment, int64_t offset, bool expect_at_entry, ls_fetch_plan *out);

/* The batch that holds `offset`, with its bytes, as a rule by one read: `buffer` has room for plan->room_bytes, and
 * *batch points into it. The header is checked against the index; the CRC is not. Any other status than LS_OK gives
 * no verdict: the guess or the index may be wrong; `ls_segment_locate` and a read decide. */
ls_status ls_segment_fetch(ls_segment *segment, int64_t offset, const ls_fetch_plan *plan, uint8_t *buffer,
                           ls_batch_location *out, const uint8_t **batch, ls_fault *fault);

/* Where the index says that a batch starts: the last such place up to `size_bytes` behind `position`, or else the first
 * behind that; and that batch's last offset. false: there is none below the published size. Whoever reads up to there
 * sees whether the index is right. */
bool ls_segment_find_cut(ls_segment *segment, int64_t position, int64_t size_bytes, int64_t *cut, int64_t *last_offset);

/* The first batch at or after `from_offset` whose max_timestamp >= timestamp; LS_END where there is none. A
 * time index entry that no batch bears out costs a scan from from_offset; otherwise as ls_segment_locate. */
ls_status ls_segment_find_timestamp(ls_segment *segment, int64_t timestamp, int64_t from_offset,
                                    ls_batch_location *out, ls_fault *fault);

/* Reads bytes [position, min(position + size, published size)); *got says how many. */
ls_status ls_segment_read(ls_segment *segment, int64_t position, uint8_t *out, size_t size, size_t *got,
                          ls_fault *fault);

/* ---- recovery -------------------------------------------------------------------------------- */

typedef enum ls_tail {
    LS_TAIL_NONE = 0,  /* the file ends with a whole, valid batch */
    LS_TAIL_TORN,      /* an unfinished write: may be cut */
    LS_TAIL_CORRUPT    /* damage that no crash explains: must not be cut */
} ls_tail;

typedef struct ls_recovery_report {
    int64_t file_size_bytes;
    int64_t valid_bytes;     /* up to here everything is sound */
    int64_t next_offset;     /* after the last sound batch */
    int64_t batches_count;   /* scanned and sound */
    ls_tail tail;
    ls_fault tail_fault;     /* what is wrong at valid_bytes; meaningless for LS_TAIL_NONE */
    int64_t next_valid_position; /* a sound later batch behind the damage, however it is judged, or -1 */
    int is_filled;               /* a torn tail of nothing but zeros: a file that was filled ahead, or never written */
} ls_recovery_report;

/* Scans batches from `position` (a batch boundary; offsets from there are >= `next_offset`) to the end of the
 * file: structure, CRC, rising offsets, leader epochs never falling. Rebuilds index entries and state for the
 * scanned part; entries at or after `position` are dropped first. `deep` 0 checks structure only, no CRC.
 * Publishes valid_bytes as the size. Does not change the file: cutting is ls_segment_truncate_bytes, and
 * appends are refused until a tail is cut. Memory: a buffer of at most 1 MiB, whatever the batches declare.
 *
 * What is known of the part before `position` is taken from the segment's state if that ends just there, else
 * from its headers, as few as the indexes allow. Index entries are those of a scan from 0 (if those before
 * `position` are), and stop where an index is full.
 *
 * Torn or corrupt (reference on reliability, section 2), the first rule that applies:
 * - TORN when the damaged batch has a matching CRC, but of its base offset (not covered by it) just the bytes
 *   before a 512-byte sector's end are zeros instead of those of next_offset;
 * - CORRUPT when the damaged batch has all its bytes and a matching CRC, but breaks another rule (offset
 *   order, leader epoch, a malformed header or control record): every byte arrived, no unfinished write;
 * - TORN when some 512-byte sector of the file that it overlaps holds only zeros in the overlap (so also when
 *   everything from valid_bytes on is zeros); an overlap of less than 8 bytes at its end counts if the sector
 *   goes on with zeros, and one at its start if the base offset there should not be zeros;
 * - CORRUPT when a whole entry of another format (magic 0, 1 or 3, LS_UNSUPPORTED) stands there;
 * - TORN when the damaged batch reaches the end of the file or past it;
 * - CORRUPT when a sound batch with a higher offset stands anywhere behind it (searched by trying each byte
 *   position whose magic byte and header are plausible, within 64 MiB), or when there are more such positions
 *   than can be tried (1 GiB of CRCs);
 * - else TORN.
 * A length that says nothing (below 49) counts as that of a header alone. A length damaged so that it leads
 * past the end reads as TORN: next_valid_position tells, and the caller knows from where on a crash may have
 * lost data. Returns LS_OK whenever the scan itself worked; after a failure the segment is as it was, less
 * index entries from `position` on. */
ls_status ls_segment_recover(ls_segment *segment, int64_t position, int64_t next_offset, int deep,
                             ls_recovery_report *report, ls_fault *fault);

/* Cuts the file to `size_bytes`, a batch boundary at or below the published size or the report's valid_bytes,
 * and both indexes and the state with it (rescanning headers from the last index entry). `next_offset`
 * becomes the state's; it may lie above the last offset kept. LS_INVALID_ARGUMENT when no batch ends at
 * size_bytes or next_offset is too low; damage in the headers scanned is returned as such. After a failure
 * nothing has changed. */
ls_status ls_segment_truncate_bytes(ls_segment *segment, int64_t size_bytes, int64_t next_offset,
                                    ls_fault *fault);

/* For a reader process: looks for batches written behind the published size since, and publishes what is
 * whole and valid (CRC checked). An incomplete or not yet valid batch at the end is left for the next call.
 * *grew: bytes published, also when a read fails half way. LS_TORN: the file is shorter than what was
 * published. */
ls_status ls_segment_catch_up(ls_segment *segment, int64_t *grew, ls_fault *fault);

/* The same for somebody who reads at once what was published: the first read goes to `first`, of which *taken bytes are the
 * first that were published. */
enum { LS_CATCH_UP_FIRST_BYTES = 4096 };
ls_status ls_segment_catch_up_into(ls_segment *segment, uint8_t first[LS_CATCH_UP_FIRST_BYTES], size_t *taken,
                                   int64_t *grew, ls_fault *fault);

#endif
