/* Compaction of a log's batches (log-format, section 7), in two passes over whole batches in memory: the
 * first maps each key to its last offset, the second judges every record and writes what stays. Erasing one
 * key is a second pass with another question.
 *
 * The caller reads files into memory, hands them in segment by segment in order of offsets, and takes the
 * output away. A compactor allocates as it needs; it belongs to one thread at a time. */
#ifndef LOGSTORE_COMPACTION_H
#define LOGSTORE_COMPACTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logstore/file.h"
#include "logstore/key_offset_map.h"
#include "logstore/record_batch.h"
#include "logstore/status.h"
#include "logstore/transaction_history.h"

typedef struct ls_compaction_rules {
    int64_t first_dirty_offset;       /* the first pass takes in records from here on */
    int64_t first_uncleanable_offset; /* batches from here on stay as they are */
    int64_t now_ms;
    int64_t delete_retention_ms;
    const uint8_t *erased_key; /* NULL: compaction. Else records with this key go,
        all others and all batches stay */
    size_t erased_key_bytes;
} ls_compaction_rules;

/* What happened to the batches and records handed in. */
typedef struct ls_compaction_counts {
    int64_t batches_read;
    int64_t batches_copied;  /* as they were */
    int64_t batches_rebuilt; /* with fewer records, or a delete horizon */
    int64_t batches_emptied; /* of those: a header alone is left */
    int64_t records_read;    /* second pass: of data batches */
    int64_t records_kept;
    int64_t records_superseded; /* a later one has the key; erasing: those erased */
    int64_t records_without_key;
    int64_t records_aborted;    /* of an aborted transaction */
    int64_t tombstones_expired;
    int64_t markers_dropped;
    int64_t keys_mapped; /* first pass: records put into the map */
} ls_compaction_counts;

/* Why a call returned. */
typedef enum ls_compaction_step {
    LS_COMPACTION_MORE,     /* all whole batches are consumed: hand in what follows */
    LS_COMPACTION_PAYLOAD,  /* the batch at *consumed is compressed: ..._payload takes it, go on behind it */
    LS_COMPACTION_COMPRESS, /* after ..._payload: the records that stay are ready to be compressed */
    LS_COMPACTION_HISTORY,  /* a producer's batch: call again with a history of the whole log */
    LS_COMPACTION_FULL,     /* the first pass is over: the map is full, or what can't be cleaned begins */
    LS_COMPACTION_OUTPUT    /* enough output has gathered: take it away and go on */
} ls_compaction_step;

typedef struct ls_compactor ls_compactor;

/* map: borrowed; NULL where rules erase a key. The erased key is borrowed, too. LS_NO_MEMORY. */
ls_status ls_compactor_create(const ls_compaction_rules *rules, ls_key_offset_map *map, ls_compactor **out,
                              ls_fault *fault);
void ls_compactor_free(ls_compactor *compactor); /* NULL is fine */

/* Borrowed, finished. Until it is set, a batch with a producer id stops a pass with LS_COMPACTION_HISTORY; a
 * partial one is enough until the first transactional batch. */
void ls_compactor_set_history(ls_compactor *compactor, const ls_transaction_history *history);

/* The second pass starts over at the first segment. */
void ls_compactor_start_pass(ls_compactor *compactor);

/* The next batches are those of a segment with offsets in [base_offset, end_offset). */
void ls_compactor_start_segment(ls_compactor *compactor, int64_t base_offset, int64_t end_offset);

/* The last batch read stays, as a header if nothing else is left of it: so the end of what was rewritten can
 * be told from the file. Second pass, behind all batches of a file. LS_NO_MEMORY. */
ls_status ls_compactor_keep_last(ls_compactor *compactor, ls_fault *fault);

const ls_compaction_counts *ls_compactor_counts(const ls_compactor *compactor);

/* Records below it are covered by the map. Final once the second pass was started: what is still on its way
 * into the map may find no room. */
int64_t ls_compactor_mapped_end_offset(const ls_compactor *compactor);
/* The first pass took in everything below this offset. */
void ls_compactor_map_ended(ls_compactor *compactor, int64_t end_offset);

/* First pass over the whole batches in [at, end); `position` is where `at` stands in its file. *consumed:
 * bytes of batches that are done; with LS_COMPACTION_MORE the rest is less than a batch, *wanted bytes of
 * which are needed (0: nothing is left). Every batch is validated, and its offsets are held against its
 * neighbours. LS_CORRUPT, LS_UNSUPPORTED, with the position; LS_NO_MEMORY. */
ls_status ls_compaction_map(ls_compactor *compactor, const uint8_t *at, const uint8_t *end, int64_t position,
                            ls_compaction_step *step, size_t *consumed, size_t *wanted, ls_fault *fault);
/* After LS_COMPACTION_PAYLOAD: its records as the codec gave them. MORE or FULL. */
ls_status ls_compaction_map_payload(ls_compactor *compactor, const uint8_t *payload,
                                    const uint8_t *payload_end,
                                    ls_compaction_step *step, ls_fault *fault);

/* Second pass, as the first. */
ls_status ls_compaction_rewrite(ls_compactor *compactor, const uint8_t *at, const uint8_t *end,
                                int64_t position,
                                ls_compaction_step *step, size_t *consumed, size_t *wanted, ls_fault *fault);
/* MORE: done, the batch went or stays as `batch` has it, or empty. COMPRESS: ls_compactor_pending has it
 * whole, but uncompressed, with the codec's number in its attributes; its compressed form is for
 * ..._compressed. */
ls_status ls_compaction_rewrite_payload(ls_compactor *compactor, const uint8_t *batch, const uint8_t *payload,
                                        const uint8_t *payload_end, ls_compaction_step *step,
                                            ls_fault *fault);
const uint8_t *ls_compactor_pending(const ls_compactor *compactor, ls_batch_header *header, size_t *size);
ls_status ls_compaction_rewrite_compressed(ls_compactor *compactor, const uint8_t *batch, size_t size,
                                           ls_fault *fault);

/* Whole batches, valid until the next call that writes; ls_compactor_clear_output after they were taken. */
const uint8_t *ls_compactor_output(const ls_compactor *compactor, size_t *size);
void ls_compactor_clear_output(ls_compactor *compactor);

/* Memory besides the map's: a bit for each offset of the first pass and an eighth of that, at most 32 MiB,
 * and for keys on their way into a large map a quarter of its memory, at most 20 MiB. */
size_t ls_compactor_memory_bytes(const ls_compactor *compactor);

/* A second thread that reads, checks and hashes what comes next in the first pass, and does the second pass with the
 * caller (work_ahead.h). It serves one compactor, which outlives it, and takes up to 3 MiB besides the output, more
 * where batches or their records are of unusual sizes. NULL where there is no second processor, no thread or no
 * memory. */
typedef struct ls_compaction_ahead ls_compaction_ahead;
ls_compaction_ahead *ls_compaction_ahead_create(ls_compactor *compactor);
void ls_compaction_ahead_free(ls_compaction_ahead *ahead); /* NULL is fine */

/* After ls_compactor_start_segment: what follows is of this file, which is read by both threads until ..._stop, and has
 * the entries of an offset index to be cut at; they may be wrong. All is borrowed until then. */
void ls_compaction_ahead_start(ls_compaction_ahead *ahead, ls_file *file, const uint8_t *index,
                               size_t entries_count, bool rewrites);
void ls_compaction_ahead_stop(ls_compaction_ahead *ahead);

/* Goes on at `position`, where a batch starts. *reached: everything in front of it is done, as ls_compaction_map and
 * ls_compaction_rewrite would have done it, and *step is MORE, FULL or OUTPUT. Where it is `position`, the caller does
 * what comes next, up to *resume at least, where a batch may start. */
ls_status ls_compaction_go_ahead(ls_compaction_ahead *ahead, int64_t position, int64_t size_bytes,
                                 ls_compaction_step *step, int64_t *reached, int64_t *resume, ls_fault *fault);

/* Aborted transactions whose marker was passed while their data was seen, since the last clear: the entries
 * of the new segment's transaction index. */
const ls_aborted_transaction *ls_compactor_aborted(const ls_compactor *compactor, size_t *count);
void ls_compactor_clear_aborted(ls_compactor *compactor);

#endif
