/* A pool of files over POSIX descriptors and threads; on other systems, nothing is taken into one. */
#if !defined(__APPLE__)
#define _POSIX_C_SOURCE 200809L
#endif

#include "logstore/file_pool.h"

#if defined(__unix__) || defined(__APPLE__)

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "file_posix.h"

enum {
    CLOSED = -(1 << 30), /* in `users` of a file whose descriptor is closed */
    /* Files looked at for one to be closed: where all are in use or not synced, that should not take long. */
    LOOKED_AT_MAX = 64,
    LINE_BYTES = 64
};

typedef struct pooled_file pooled_file;

/* What each operation needs stands first, in one cache line. */
struct pooled_file {
    ls_file file;
    atomic_int users; /* of the descriptor, just now */
    int descriptor;   /* changes only with the pool's lock, while it is closed */
    atomic_bool is_unsynced;
    atomic_bool is_used; /* again, since it was opened or last looked at */
    atomic_int sync_errno; /* of the sync that failed when the file was to be closed */
    ls_file_pool *pool;
    pooled_file *before; /* the ring of files that are open */
    pooled_file *after;
    ls_descriptor_identity identity;
    int mode;
    char path[];
};

struct ls_file_pool {
    pthread_mutex_t lock; /* of the ring, and of opening and closing what is in it */
    pooled_file *next;    /* the next to be looked at; NULL: the ring is empty */
    atomic_int open_count;
    atomic_int open_max;
    atomic_int unsynced_max;
    atomic_bool is_forgotten;
};

/* ---- the ring, with the lock ------------------------------------------------------------------- */

static void enter(ls_file_pool *pool, pooled_file *file) {
    pooled_file *next = pool->next;
    if (next == NULL) {
        file->before = file->after = pool->next = file;
    } else { /* the last to be looked at */
        file->before = next->before;
        file->after = next;
        file->before->after = file->after->before = file;
    }
    atomic_fetch_add_explicit(&pool->open_count, 1, memory_order_relaxed);
}

static void leave(ls_file_pool *pool, pooled_file *file) {
    if (pool->next == file) pool->next = file->after == file ? NULL : file->after;
    file->before->after = file->after;
    file->after->before = file->before;
    atomic_fetch_sub_explicit(&pool->open_count, 1, memory_order_relaxed);
}

/* Gives a file's descriptor back, unless somebody uses it just now. */
static bool close_unused(ls_file_pool *pool, pooled_file *file) {
    int nobody = 0;
    if (!atomic_compare_exchange_strong_explicit(&file->users, &nobody, CLOSED, memory_order_acq_rel,
                                                 memory_order_relaxed)) {
        return false;
    }
    /* Asked again, as nobody can write it any more. */
    if (atomic_load_explicit(&file->is_unsynced, memory_order_relaxed)) {
        ls_fault fault;
        if (ls_descriptor_sync(file->descriptor, &fault) != LS_OK)
            atomic_store_explicit(&file->sync_errno, fault.os_errno, memory_order_relaxed);
        atomic_store_explicit(&file->is_unsynced, false, memory_order_relaxed);
    }
    leave(pool, file);
    ls_descriptor_close(file->descriptor);
    return true;
}

static bool close_one(ls_file_pool *pool, bool syncs) {
    int count = atomic_load_explicit(&pool->open_count, memory_order_relaxed);
    int steps = syncs || 2 * count < LOOKED_AT_MAX ? 2 * count : LOOKED_AT_MAX; /* twice: each may be in use once */
    for (int i = 0; i < steps && pool->next != NULL; i++) {
        pooled_file *file = pool->next;
        pool->next = file->after;
        if (atomic_load_explicit(&file->is_used, memory_order_relaxed)) {
            atomic_store_explicit(&file->is_used, false, memory_order_relaxed);
            continue;
        }
        if (!syncs && atomic_load_explicit(&file->is_unsynced, memory_order_relaxed)) continue;
        if (close_unused(pool, file)) return true;
    }
    return false;
}

static void make_room(ls_file_pool *pool, int wanted) {
    int open_max = atomic_load_explicit(&pool->open_max, memory_order_relaxed) - wanted;
    int unsynced_max = atomic_load_explicit(&pool->unsynced_max, memory_order_relaxed) - wanted;
    for (;;) {
        int count = atomic_load_explicit(&pool->open_count, memory_order_relaxed);
        if (count <= open_max) return;
        if (!close_one(pool, false) && (count <= unsynced_max || !close_one(pool, true))) return;
    }
}

static ls_status open_named(ls_file_pool *pool, const pooled_file *file, int *descriptor, ls_fault *fault) {
    ls_descriptor_identity found;
    ls_status status;
    for (;;) {
        status = ls_descriptor_open(file->path, file->mode, descriptor, &found, fault);
        if (status == LS_OK) break;
        if ((fault->os_errno == EMFILE || fault->os_errno == ENFILE) && close_one(pool, true)) continue;
        switch (fault->os_errno) {
        case EMFILE:
        case ENFILE:
        case ENOMEM: fault->status = LS_NO_DESCRIPTOR; return LS_NO_DESCRIPTOR;
        case ENOENT: return ls_fail(fault, LS_CORRUPT, "the file is gone", -1, 0, 0);
        default: return status;
        }
    }
    if (found.device == file->identity.device && found.inode == file->identity.inode) return LS_OK;
    ls_descriptor_close(*descriptor);
    return ls_fail(fault, LS_CORRUPT, "another file stands in the place of this one", -1, (int64_t)file->identity.inode,
                   (int64_t)found.inode);
}

/* ---- one file ---------------------------------------------------------------------------------- */

/* The caller, who is counted among the users, has found the file closed. */
static ls_status open_again(pooled_file *file, ls_fault *fault) {
    ls_file_pool *pool = file->pool;
    ls_status status = LS_OK;
    if (atomic_load_explicit(&pool->is_forgotten, memory_order_relaxed)) {
        atomic_fetch_sub_explicit(&file->users, 1, memory_order_release);
        return ls_fail(fault, LS_IO, "open, in a forked child, a file of its parent", -1, 0, 0);
    }
    pthread_mutex_lock(&pool->lock);
    if (atomic_load_explicit(&file->users, memory_order_relaxed) < 0) {
        int descriptor;
        make_room(pool, 1);
        status = open_named(pool, file, &descriptor, fault);
        if (status == LS_OK) {
            file->descriptor = descriptor;
            enter(pool, file);
            atomic_fetch_sub_explicit(&file->users, CLOSED, memory_order_acq_rel);
        }
    }
    if (status != LS_OK) atomic_fetch_sub_explicit(&file->users, 1, memory_order_release);
    pthread_mutex_unlock(&pool->lock);
    return status;
}

/* From here to let_go, the descriptor is open. */
static inline ls_status hold(pooled_file *file, ls_fault *fault) {
    if (atomic_fetch_add_explicit(&file->users, 1, memory_order_acquire) < 0) return open_again(file, fault);
    if (!atomic_load_explicit(&file->is_used, memory_order_relaxed))
        atomic_store_explicit(&file->is_used, true, memory_order_relaxed);
    return LS_OK;
}

static inline void let_go(pooled_file *file) { atomic_fetch_sub_explicit(&file->users, 1, memory_order_release); }

static bool has_failed(const pooled_file *file) {
    return atomic_load_explicit(&file->sync_errno, memory_order_relaxed) != 0;
}

static ls_status refuse_after_failed_sync(const pooled_file *file, ls_fault *fault) {
    ls_fail(fault, LS_IO, "sync", -1, 0, 0);
    fault->os_errno = atomic_load_explicit(&file->sync_errno, memory_order_relaxed);
    return LS_IO;
}

static ls_status pooled_read(ls_file *opaque, int64_t position, uint8_t *out, size_t size, size_t *got, ls_fault *fault) {
    pooled_file *file = (pooled_file *)opaque;
    ls_status status = hold(file, fault);
    if (status != LS_OK) return status;
    status = ls_descriptor_read(file->descriptor, position, out, size, got, fault);
    let_go(file);
    return status;
}

static ls_status pooled_read_once(ls_file *opaque, int64_t position, uint8_t *out, size_t size, size_t *got,
                                  ls_fault *fault) {
    pooled_file *file = (pooled_file *)opaque;
    ls_status status = hold(file, fault);
    if (status != LS_OK) return status;
    status = ls_descriptor_read_once(file->descriptor, position, out, size, got, fault);
    let_go(file);
    return status;
}

static ls_status pooled_write(ls_file *opaque, int64_t position, const uint8_t *bytes, size_t size, ls_fault *fault) {
    pooled_file *file = (pooled_file *)opaque;
    ls_status status = hold(file, fault);
    if (status != LS_OK) return status;
    if (has_failed(file)) {
        status = refuse_after_failed_sync(file, fault);
    } else {
        status = ls_descriptor_write(file->descriptor, position, bytes, size, fault);
        /* After the write: a sync that goes on just now may have missed it. */
        atomic_store_explicit(&file->is_unsynced, true, memory_order_relaxed);
    }
    let_go(file);
    return status;
}

static void pooled_write_back(ls_file *opaque, int64_t position, int64_t size) {
    pooled_file *file = (pooled_file *)opaque;
    ls_fault ignored;
    if (hold(file, &ignored) != LS_OK) return;
    ls_descriptor_write_back(file->descriptor, position, size);
    let_go(file);
}

static bool pooled_reserve(ls_file *opaque, int64_t position, int64_t size) {
    pooled_file *file = (pooled_file *)opaque;
    ls_fault ignored;
    if (hold(file, &ignored) != LS_OK) return false;
    bool is_reserved = ls_descriptor_reserve(file->descriptor, position, size);
    let_go(file);
    return is_reserved;
}

static ls_status pooled_truncate(ls_file *opaque, int64_t size, ls_fault *fault) {
    pooled_file *file = (pooled_file *)opaque;
    ls_status status = hold(file, fault);
    if (status != LS_OK) return status;
    status = ls_descriptor_truncate(file->descriptor, size, fault);
    atomic_store_explicit(&file->is_unsynced, true, memory_order_relaxed);
    let_go(file);
    return status;
}

static ls_status pooled_size(ls_file *opaque, int64_t *size, ls_fault *fault) {
    pooled_file *file = (pooled_file *)opaque;
    ls_status status = hold(file, fault);
    if (status != LS_OK) return status;
    status = ls_descriptor_size(file->descriptor, size, fault);
    let_go(file);
    return status;
}

/* Whether the file is closed: it was synced then, or the sync has failed, and nobody has written since. */
static bool is_closed(pooled_file *file) {
    if (atomic_load_explicit(&file->users, memory_order_relaxed) >= 0) return false;
    if (atomic_load_explicit(&file->pool->is_forgotten, memory_order_relaxed)) return false;
    pthread_mutex_lock(&file->pool->lock); /* whoever closes it is done */
    bool found = atomic_load_explicit(&file->users, memory_order_relaxed) < 0;
    pthread_mutex_unlock(&file->pool->lock);
    return found;
}

static ls_status pooled_sync(ls_file *opaque, ls_fault *fault) {
    pooled_file *file = (pooled_file *)opaque;
    ls_file_pool *pool = file->pool;
    ls_status status = LS_OK;
    if (!is_closed(file)) {
        /* Not as a use: who flushes does not say that the file is needed again. */
        if (atomic_fetch_add_explicit(&file->users, 1, memory_order_acquire) < 0) status = open_again(file, fault);
        if (status != LS_OK) return status;
        /* Before the sync: what is written meanwhile is not covered. */
        atomic_store_explicit(&file->is_unsynced, false, memory_order_seq_cst);
        status = ls_descriptor_sync(file->descriptor, fault);
        if (status != LS_OK) atomic_store_explicit(&file->is_unsynced, true, memory_order_relaxed);
        let_go(file);
    }
    if (status == LS_OK && has_failed(file)) status = refuse_after_failed_sync(file, fault);
    if (atomic_load_explicit(&pool->open_count, memory_order_relaxed) >
            atomic_load_explicit(&pool->open_max, memory_order_relaxed) &&
        pthread_mutex_trylock(&pool->lock) == 0) {
        make_room(pool, 0);
        pthread_mutex_unlock(&pool->lock);
    }
    return status;
}

static void pooled_close(ls_file *opaque) {
    pooled_file *file = (pooled_file *)opaque;
    ls_file_pool *pool = file->pool;
    if (atomic_load_explicit(&pool->is_forgotten, memory_order_relaxed)) {
        if (atomic_load_explicit(&file->users, memory_order_relaxed) >= 0) ls_descriptor_close(file->descriptor);
    } else {
        pthread_mutex_lock(&pool->lock);
        bool is_open = atomic_load_explicit(&file->users, memory_order_relaxed) >= 0;
        if (is_open) leave(pool, file);
        pthread_mutex_unlock(&pool->lock);
        if (is_open) ls_descriptor_close(file->descriptor);
    }
    free(file);
}

static const ls_file_operations pooled_operations = {
    .read = pooled_read,
    .write = pooled_write,
    .sync = pooled_sync,
    .truncate = pooled_truncate,
    .size = pooled_size,
    .close = pooled_close,
    .write_back = pooled_write_back,
    .reserve = pooled_reserve,
    .read_once = pooled_read_once,
};

/* ---- the pool ---------------------------------------------------------------------------------- */

ls_status ls_file_pool_create(int open_max, int unsynced_max, ls_file_pool **out, ls_fault *fault) {
    if (open_max < 1 || unsynced_max < open_max)
        return ls_fail(fault, LS_INVALID_ARGUMENT, "limits of a file pool", -1, open_max, unsynced_max);
    ls_file_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL || pthread_mutex_init(&pool->lock, NULL) != 0) {
        free(pool);
        return ls_fail(fault, LS_NO_MEMORY, "file pool", -1, (int64_t)sizeof *pool, 0);
    }
    ls_file_pool_limit(pool, open_max, unsynced_max);
    *out = pool;
    return LS_OK;
}

void ls_file_pool_free(ls_file_pool *pool) {
    if (pool == NULL) return;
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void ls_file_pool_limit(ls_file_pool *pool, int open_max, int unsynced_max) {
    atomic_store_explicit(&pool->open_max, open_max, memory_order_relaxed);
    atomic_store_explicit(&pool->unsynced_max, unsynced_max, memory_order_relaxed);
}

int ls_file_pool_open_count(const ls_file_pool *pool) {
    return atomic_load_explicit(&pool->open_count, memory_order_relaxed);
}

ls_status ls_file_pool_take(ls_file_pool *pool, ls_file *plain, const char *path, int mode, bool is_synced, ls_file **out,
                            ls_fault *fault) {
    int descriptor = ls_file_descriptor(plain);
    if (descriptor < 0) return ls_fail(fault, LS_UNSUPPORTED, "file for a pool", -1, 0, 0);
    ls_descriptor_identity identity;
    ls_status status = ls_descriptor_identify(descriptor, &identity, fault);
    if (status != LS_OK) return status;
    size_t path_bytes = strlen(path) + 1;
    size_t size = (sizeof(pooled_file) + path_bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    pooled_file *file = aligned_alloc(LINE_BYTES, size);
    if (file == NULL) return ls_fail(fault, LS_NO_MEMORY, "file", -1, (int64_t)size, 0);
    memset(file, 0, sizeof *file);
    memcpy(file->path, path, path_bytes);
    file->file.operations = &pooled_operations;
    file->descriptor = ls_file_release(plain);
    file->pool = pool;
    file->identity = identity;
    file->mode = mode;
    atomic_init(&file->users, 0);
    atomic_init(&file->is_unsynced, !is_synced);
    atomic_init(&file->is_used, false);
    pthread_mutex_lock(&pool->lock);
    make_room(pool, 1);
    enter(pool, file);
    pthread_mutex_unlock(&pool->lock);
    *out = &file->file;
    return LS_OK;
}

bool ls_file_pool_make_room(ls_file_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    bool has_closed = close_one(pool, false) || close_one(pool, true);
    pthread_mutex_unlock(&pool->lock);
    return has_closed;
}

void ls_file_pool_forget(ls_file_pool *pool) { atomic_store_explicit(&pool->is_forgotten, true, memory_order_relaxed); }

#else

struct ls_file_pool {
    char nothing;
};

ls_status ls_file_pool_create(int open_max, int unsynced_max, ls_file_pool **out, ls_fault *fault) {
    (void)open_max, (void)unsynced_max, (void)out;
    return ls_fail(fault, LS_UNSUPPORTED, "file pool", -1, 0, 0);
}
void ls_file_pool_free(ls_file_pool *pool) { (void)pool; }
void ls_file_pool_limit(ls_file_pool *pool, int open_max, int unsynced_max) {
    (void)pool, (void)open_max, (void)unsynced_max;
}
int ls_file_pool_open_count(const ls_file_pool *pool) {
    (void)pool;
    return 0;
}
ls_status ls_file_pool_take(ls_file_pool *pool, ls_file *plain, const char *path, int mode, bool is_synced, ls_file **out,
                            ls_fault *fault) {
    (void)pool, (void)plain, (void)path, (void)mode, (void)is_synced, (void)out;
    return ls_fail(fault, LS_UNSUPPORTED, "file for a pool", -1, 0, 0);
}
bool ls_file_pool_make_room(ls_file_pool *pool) {
    (void)pool;
    return false;
}
void ls_file_pool_forget(ls_file_pool *pool) { (void)pool; }

#endif
