#include "faulty_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool fails(faulty_file *faulty, faulty_operation operation, const char *reason, int64_t position,
                  ls_fault *fault) {
    int call = faulty->calls++;
    faulty->calls_of[operation]++;
    if (faulty->fail_call == FAULTY_NEVER || call < faulty->fail_call) return false;
    if (call > faulty->fail_call && !faulty->fail_goes_on) return false;
    faulty->failed_count++;
    ls_fail(fault, faulty->fail_status, reason, position, 0, 0);
    fault->os_errno = faulty->fail_status == LS_DISK_FULL ? ENOSPC : EIO;
    return true;
}

static void put(faulty_file *faulty, size_t position, const uint8_t *bytes, size_t size) {
    if (size == 0) return;
    size_t end = position + size;
    if (end > faulty->capacity) {
        size_t capacity = end * 2;
        uint8_t *grown = realloc(faulty->bytes, capacity);
        if (grown == NULL) abort();
        faulty->bytes = grown;
        faulty->capacity = capacity;
    }
    if (position > faulty->size) memset(faulty->bytes + faulty->size, 0, position - faulty->size);
    memcpy(faulty->bytes + position, bytes, size);
    if (end > faulty->size) faulty->size = end;
}

static ls_status faulty_read(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got,
                             ls_fault *fault) {
    faulty_file *faulty = (faulty_file *)file;
    if (fails(faulty, FAULTY_READ, "read", position, fault)) return fault->status;
    size_t at = (size_t)position;
    size_t left = at < faulty->size ? faulty->size - at : 0;
    if (size > left) size = left;
    if (size > 0) memcpy(out, faulty->bytes + at, size);
    faulty->bytes_read += (int64_t)size;
    if (size > faulty->largest_read) faulty->largest_read = size;
    *got = size;
    return LS_OK;
}

static ls_status faulty_write(ls_file *file, int64_t position, const uint8_t *bytes, size_t size,
                              ls_fault *fault) {
    faulty_file *faulty = (faulty_file *)file;
    if (fails(faulty, FAULTY_WRITE, "write", position, fault)) {
        put(faulty, (size_t)position, bytes, size < faulty->torn_bytes ? size : faulty->torn_bytes);
        return fault->status;
    }
    put(faulty, (size_t)position, bytes, size);
    return LS_OK;
}

static ls_status faulty_sync(ls_file *file, ls_fault *fault) {
    return fails((faulty_file *)file, FAULTY_SYNC, "sync", -1, fault) ? fault->status : LS_OK;
}

static ls_status faulty_truncate(ls_file *file, int64_t size, ls_fault *fault) {
    faulty_file *faulty = (faulty_file *)file;
    if (fails(faulty, FAULTY_TRUNCATE, "truncate", size, fault)) return fault->status;
    if ((size_t)size > faulty->size) {
        const uint8_t zero = 0;
        put(faulty, (size_t)size - 1, &zero, 1);
    }
    faulty->size = (size_t)size;
    return LS_OK;
}

static ls_status faulty_size(ls_file *file, int64_t *size, ls_fault *fault) {
    faulty_file *faulty = (faulty_file *)file;
    if (fails(faulty, FAULTY_SIZE, "size", -1, fault)) return fault->status;
    *size = (int64_t)faulty->size;
    return LS_OK;
}

static void faulty_close(ls_file *file) { ((faulty_file *)file)->is_closed = true; }

static void faulty_write_back(ls_file *file, int64_t position, int64_t size) {
    faulty_file *faulty = (faulty_file *)file;
    faulty->written_back_from = position;
    faulty->written_back_bytes = size;
}

static bool faulty_reserve(ls_file *file, int64_t position, int64_t size) {
    faulty_file *faulty = (faulty_file *)file;
    faulty->reserved_from = position;
    faulty->reserved_bytes = size;
    faulty->reservations_count++;
    return faulty->can_reserve;
}

static const ls_file_operations faulty_operations = {
    .read = faulty_read,
    .write = faulty_write,
    .sync = faulty_sync,
    .truncate = faulty_truncate,
    .size = faulty_size,
    .close = faulty_close,
    .write_back = faulty_write_back,
    .reserve = faulty_reserve,
};

void faulty_file_init(faulty_file *faulty, const uint8_t *bytes, size_t size) {
    *faulty = (faulty_file){.file.operations = &faulty_operations, .fail_call = FAULTY_NEVER};
    put(faulty, 0, bytes, size);
}

void faulty_file_free(faulty_file *faulty) {
    free(faulty->bytes);
    faulty->bytes = NULL;
}

void faulty_file_reopen(faulty_file *faulty) {
    faulty->is_closed = false;
    faulty->calls = 0;
    memset(faulty->calls_of, 0, sizeof faulty->calls_of);
    faulty->bytes_read = 0;
    faulty->largest_read = 0;
    faulty->fail_call = FAULTY_NEVER;
    faulty->failed_count = 0;
}

void faulty_file_fail(faulty_file *faulty, int calls_from_now, ls_status status, bool goes_on,
                      size_t torn_bytes) {
    faulty->fail_call = faulty->calls + calls_from_now;
    faulty->fail_status = status;
    faulty->fail_goes_on = goes_on;
    faulty->torn_bytes = torn_bytes;
    faulty->failed_count = 0;
}
