/* Files that share descriptors: however many there are, so many are open at a time. One that was closed for want of room is
 * opened again, by its name, when it is used; that it is the same file is checked.
 *
 * Closed are those that were not used for long, and of these, only what has been synced since it was last written: the
 * kernel tells of a write-back that failed whoever has the file open then, and may tell nobody else. Files that are not synced
 * may be more than the others, up to a limit of their own; beyond, one of them is synced for each that is opened. If that
 * fails, the next sync or write of that file says so.
 *
 * Threads: a pool, and each file, may be used by any number of threads, as a file by itself. Operations of a file that is
 * open take no lock. Where the system has no such files, nothing is taken into a pool. */
#ifndef LOGSTORE_FILE_POOL_H
#define LOGSTORE_FILE_POOL_H

#include <stdbool.h>

#include "logstore/file.h"

typedef struct ls_file_pool ls_file_pool;

/* At most open_max (at least 1) files are open, or as many as are not synced, and of those unsynced_max (at least
 * open_max); one more for each thread that uses one just then. */
ls_status ls_file_pool_create(int open_max, int unsynced_max, ls_file_pool **out, ls_fault *fault);
/* Once all its files are closed. */
void ls_file_pool_free(ls_file_pool *pool);
/* Other limits, from the next file that is opened on. */
void ls_file_pool_limit(ls_file_pool *pool, int open_max, int unsynced_max);
int ls_file_pool_open_count(const ls_file_pool *pool);

/* The file `plain`, which ls_file_open has made of `path`, becomes one of the pool: *out is used in its place. `mode`:
 * LS_FILE_READ or LS_FILE_WRITE. `is_synced`: whatever it holds is on disk. Operations of *out give, besides what the
 * file's own give, LS_NO_DESCRIPTOR where it can't be opened now, and LS_CORRUPT where it is gone, or another stands under its
 * name. LS_UNSUPPORTED for a file of another kind; after any failure `plain` is as it was. */
ls_status ls_file_pool_take(ls_file_pool *pool, ls_file *plain, const char *path, int mode, bool is_synced, ls_file **out,
                            ls_fault *fault);

/* Closes a file of the pool, for somebody who has found that no more can be opened; false: none could be closed. */
bool ls_file_pool_make_room(ls_file_pool *pool);

/* In a forked child, before anything else: its files are the parent's, may be closed, and are not opened again. */
void ls_file_pool_forget(ls_file_pool *pool);

#endif
