/* What the two files of the compaction share: the compactor, and its loops over records. */
#ifndef LOGSTORE_COMPACTION_INTERNAL_H
#define LOGSTORE_COMPACTION_INTERNAL_H

#include "logstore/compaction.h"

/* Output is taken away in pieces of this size: large writes, and still in the second-level cache. */
enum { LS_COMPACTION_OUTPUT_BYTES = 512 * 1024 };

/* A record that stays: what stands behind its timestamp is copied. */
typedef struct ls_kept_record {
    const uint8_t *tail;
    size_t tail_bytes;
    int64_t timestamp;
} ls_kept_record;

typedef struct ls_byte_buffer {
    uint8_t *bytes;
    size_t size;
    size_t capacity;
} ls_byte_buffer;

/* How a batch is to be treated, whatever its records are. */
typedef struct ls_batch_fate {
    bool drops_records; /* all of them: aborted data, or a marker whose time has come */
    bool keeps_empty;   /* a header stays where no record does */
    bool wants_horizon; /* a marker without data, which goes later */
} ls_batch_fate;

struct ls_compactor {
    ls_compaction_rules rules;
    bool is_ahead; /* it serves another one: knows no transactions, and keeps all of its output */
    ls_key_offset_map *map;
    const ls_transaction_history *history;
    ls_transaction_walk walk;
    ls_compaction_counts counts;
    int64_t mapped_end_offset;
    uint64_t *superseded; /* a bit for each offset from first_dirty_offset on: a later record has the key */
    size_t superseded_words;
    bool marks_superseded; /* until it would take too much memory */
    struct ls_gathered_keys *gathered; /* NULL: keys go into the map at once */
    bool shares_parts;                 /* of the table with a second thread */
    struct ls_work_ahead *parts_work;  /* NULL: there was no need yet */
    int64_t full_offset; /* the first that found no room in the map */
    uint64_t read_ahead; /* what was read ahead came to: of no meaning, but nothing that may be left out */
    int64_t superseded_end_offset; /* records from there on are looked up in the map */
    int64_t next_offset; /* smallest base offset the next batch may have */
    int64_t end_offset;  /* of the segment */
    ls_batch_header header; /* of the batch at hand, or whose payload is awaited; the last one read */
    bool is_gone;           /* nothing of it was written */
    ls_batch_fate fate;
    int64_t position;
    ls_kept_record *kept; /* of the batch at hand */
    size_t kept_count;
    size_t kept_capacity;
    ls_byte_buffer output;
    ls_byte_buffer pending;
    ls_batch_header pending_header;
    ls_aborted_transaction *aborted;
    size_t aborted_count;
    size_t aborted_capacity;
};

static inline bool ls_is_control(const ls_batch_header *header) {
    return (header->attributes & LS_ATTRIBUTE_CONTROL) != 0;
}

static inline bool ls_is_transactional(const ls_batch_header *header) {
    return header->producer_id >= 0 && (header->attributes & LS_ATTRIBUTE_TRANSACTIONAL) != 0;
}

/* The next whole batch, its structure and its place checked, becomes compactor->header. LS_END: less than a
 * batch is left, of which *wanted bytes are needed. */
ls_status ls_compaction_next_batch(ls_compactor *compactor, const uint8_t *at, const uint8_t *end,
                                   int64_t position, size_t *wanted, ls_fault *fault);
/* Of the batch at hand, everything that this has not checked. */
ls_status ls_compaction_validate(const ls_compactor *compactor, const uint8_t *at, ls_fault *fault);
void ls_compaction_batch_is_done(ls_compactor *compactor);
/* The position of a fault among records is that in the uncompressed batch: it becomes one in the file. */
ls_status ls_compaction_in_file(const ls_compactor *compactor, ls_status status, ls_fault *fault);
bool ls_compaction_needs_history(const ls_compactor *compactor);

/* Puts the keys of a batch's records into the map. *is_full: it ended before a record, from which on nothing
 * was taken in; compactor->mapped_end_offset is its offset. */
ls_status ls_compaction_map_records(ls_compactor *compactor, const ls_batch_header *header,
                                    const uint8_t *payload,
                                    const uint8_t *payload_end, bool *is_full, ls_fault *fault);

/* The end of the first pass: what has gathered goes into the map. */
void ls_compaction_put_all_gathered(ls_compactor *compactor);

/* And the second thread that has put some of it ends. */
void ls_compaction_share_no_parts(ls_compactor *compactor);

/* Whether the first pass has found later records for all of a batch's. */
bool ls_compaction_is_superseded(const ls_compactor *compactor, const ls_batch_header *header);

/* Judges a data batch's records: compactor->kept becomes those that stay. *has_tombstone: one of them is
 * null. */
ls_status ls_compaction_judge_records(ls_compactor *compactor, const ls_batch_header *header,
                                      const uint8_t *payload, const uint8_t *payload_end, bool *has_tombstone,
                                      ls_fault *fault);

/* The same for a batch that keeps every record (a marker that gets a horizon). */
ls_status ls_compaction_keep_records(ls_compactor *compactor, const ls_batch_header *header,
                                     const uint8_t *payload, const uint8_t *payload_end, ls_fault *fault);

/* Encodes compactor->kept behind what the buffer holds, against a base timestamp. */
ls_status ls_compaction_encode_kept(const ls_compactor *compactor, int64_t base_timestamp,
                                    ls_byte_buffer *buffer, ls_fault *fault);

/* Room for `more` bytes behind what a buffer holds. LS_NO_MEMORY. */
ls_status ls_byte_buffer_reserve(ls_byte_buffer *buffer, size_t more, ls_fault *fault);

#endif
