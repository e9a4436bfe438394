/* Waking readers in other processes by memory that they share with the writer of a data directory: a file of fixed size
 * that both map (docs/format/waiting.md).
 *
 * A reader owns one of its slots, by a lock on the slot's first byte that ends with its process, and says which logs it
 * waits for: a log is known by its *bucket*, a hash of its directory's name, so that a reader is told too much at times,
 * and never too little. The writer sees with one load that nobody waits for a log. Before a write it *announces*, which
 * wakes a sleeper on another CPU early; after it, it *signals*: it marks the bucket in each slot, and wakes who sleeps.
 *
 * What is in the file is never relied on: whatever it holds, a reader is woken too often, or a sleeper that waits for
 * other notifications as well is not woken by these. Nothing is counted, so that nothing is left over of the dead: a
 * sleeper that was killed costs one wake-up in vain.
 *
 * Threads: `announce` and `signal` by any number at a time, also beside everything a reader does; `ring`, `follow` and
 * `unfollow` by any; `sleep` and `collect` by the one that waits. `open` and `close` while nobody is in any of them.
 * Linux; elsewhere `open` says LS_UNSUPPORTED. */
#ifndef LOGSTORE_WAKE_TABLE_H
#define LOGSTORE_WAKE_TABLE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "logstore/file.h"
#include "logstore/status.h"

enum {
    LS_WAKE_MAGIC_AT = 0,      /* "LSWT" */
    LS_WAKE_VERSION_AT = 4,    /* u16, big-endian as in all our files; all that follows are words of this machine */
    LS_WAKE_AWAITED_AT = 1024, /* for each bucket, a bit for each slot that waits for it */
    LS_WAKE_SLOTS_AT = 4096,
    LS_WAKE_SLOT_BYTES = 128,
    LS_WAKE_SLOTS = 32,
    LS_WAKE_BUCKETS = 256,
    LS_WAKE_MARK_WORDS = LS_WAKE_BUCKETS / 32,
    LS_WAKE_TABLE_BYTES = LS_WAKE_SLOTS_AT + LS_WAKE_SLOTS * LS_WAKE_SLOT_BYTES
};

typedef struct ls_wake_table {
    uint8_t *map;  /* NULL: there is none */
    ls_file *file; /* keeps the locks */
} ls_wake_table;

/* An empty table: what is to be written into a new file. */
void ls_wake_table_format(uint8_t *out);

/* Maps an existing one. LS_CORRUPT, LS_UNSUPPORTED: what stands there is none, or can't be used here; LS_IO. */
ls_status ls_wake_table_open(const char *path, ls_wake_table *out, ls_fault *fault);

/* Lets go of it: the last of what a process has of the file, its map, is what others may notice the end of. Safe on a
 * zeroed one, and twice; nobody is awaited from then on. */
void ls_wake_table_close(ls_wake_table *table);

/* For the writer, when it opens the directory: forgets what readers have left that are gone. */
void ls_wake_table_sweep(ls_wake_table *table);

/* Of a log, by the name of its directory. */
uint32_t ls_wake_bucket(const uint8_t *name, size_t name_bytes);

/* ---- the writer -------------------------------------------------------------------------------------- */

/* Before a write, as a hint: whether anybody waits for the log. */
static inline int ls_wake_may_be_awaited(const ls_wake_table *table, uint32_t bucket) {
    if (table->map == NULL) return 0;
    const _Atomic uint32_t *awaited = (const _Atomic uint32_t *)(const void *)(table->map + LS_WAKE_AWAITED_AT);
    return atomic_load_explicit(&awaited[bucket], memory_order_relaxed) != 0;
}

/* After a write: 0 says that whoever comes to wait from here on sees the write. */
int ls_wake_is_awaited(const ls_wake_table *table, uint32_t bucket);

/* Wakes one sleeper, on another CPU, for what `signal` is likely to tell of at once; more would want the CPU that is to
 * do the write. Returns whether it did, or had. */
int ls_wake_announce(ls_wake_table *table, uint32_t bucket);

/* Tells all who wait for the log. `is_more`: more has changed than that records were appended. */
void ls_wake_signal(ls_wake_table *table, uint32_t bucket, int is_more);

/* ---- readers ----------------------------------------------------------------------------------------- */

typedef struct ls_wake_reader {
    ls_wake_table table;
    uint32_t slot;
    long process;        /* in a forked child the slot is the parent's */
    atomic_uint is_rung; /* by this process */
} ls_wake_reader;

typedef enum ls_wake_sleep {
    LS_WAKE_NOTHING, /* the time is over, or what was announced did not come */
    LS_WAKE_NEWS,    /* `collect` has something, or it was rung */
    LS_WAKE_SIGNAL   /* of the operating system */
} ls_wake_sleep;

/* Opens a table and takes a slot. LS_FULL: each has its reader. Otherwise as ls_wake_table_open. */
ls_status ls_wake_reader_open(const char *path, ls_wake_reader *out, ls_fault *fault);

/* Of the table's file. */
static inline int ls_wake_reader_descriptor(const ls_wake_reader *reader) {
    return ls_file_descriptor(reader->table.file);
}

/* Gives the slot back, and all else. Safe on a zeroed one, and twice. */
void ls_wake_reader_close(ls_wake_reader *reader);

/* What is written from here on is signalled; what was written before is for the caller to look at, after this. */
void ls_wake_reader_follow(ls_wake_reader *reader, uint32_t bucket);
void ls_wake_reader_unfollow(ls_wake_reader *reader, uint32_t bucket);

/* Sleeps until there is news, for `timeout_ns` at most, below 0 without end. Woken by an announcement it looks out for
 * the news for `look_out_ns` at most. */
ls_wake_sleep ls_wake_reader_sleep(ls_wake_reader *reader, int64_t timeout_ns, int64_t look_out_ns);

/* Has `sleep` return, now or when it is called next. */
void ls_wake_reader_ring(ls_wake_reader *reader);

/* Whether `collect` has something, or it was rung. */
int ls_wake_reader_has_news(const ls_wake_reader *reader);

/* Takes what was signalled: a bit for each bucket. Returns whether there was anything. Takes the ringing, too. */
int ls_wake_reader_collect(ls_wake_reader *reader, uint32_t *changed, uint32_t *more);

#endif
