/* A file that goes on in memory. */
#include <stdlib.h>
#include <string.h>

#include "logstore/file.h"

typedef struct extended_file {
    ls_file file;
    ls_file *below;
    int64_t position; /* from here on it is the bytes' turn */
    size_t size;
    uint8_t bytes[];
} extended_file;

static ls_status extended_read(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got,
                               ls_fault *fault) {
    const extended_file *extended = (const extended_file *)file;
    size_t done = 0;
    if (position < extended->position) {
        int64_t left = extended->position - position;
        size_t wanted = (uint64_t)left < size ? (size_t)left : size;
        ls_status status = ls_file_read(extended->below, position, out, wanted, &done, fault);
        if (status != LS_OK) return status;
        if (done < wanted || done == size) { /* shorter than it was: nothing follows on */
            *got = done;
            return LS_OK;
        }
    }
    uint64_t from = (uint64_t)(position + (int64_t)done - extended->position);
    if (from < extended->size) {
        size_t available = extended->size - (size_t)from;
        size_t taken = size - done < available ? size - done : available;
        memcpy(out + done, extended->bytes + from, taken);
        done += taken;
    }
    *got = done;
    return LS_OK;
}

static ls_status refuse(const char *operation, ls_fault *fault) {
    return ls_fail(fault, LS_INVALID_ARGUMENT, operation, -1, 0, 0);
}

static ls_status extended_write(ls_file *file, int64_t position, const uint8_t *bytes, size_t size,
                                ls_fault *fault) {
    (void)file, (void)position, (void)bytes, (void)size;
    return refuse("a file that goes on in memory is not written", fault);
}

static ls_status extended_sync(ls_file *file, ls_fault *fault) {
    (void)file;
    return refuse("a file that goes on in memory is not synced", fault);
}

static ls_status extended_truncate(ls_file *file, int64_t size, ls_fault *fault) {
    (void)file, (void)size;
    return refuse("a file that goes on in memory is not truncated", fault);
}

static ls_status extended_size(ls_file *file, int64_t *size, ls_fault *fault) {
    const extended_file *extended = (const extended_file *)file;
    int64_t below_bytes;
    ls_status status = ls_file_size(extended->below, &below_bytes, fault);
    if (status != LS_OK) return status;
    *size = below_bytes < extended->position ? below_bytes : extended->position + (int64_t)extended->size;
    return LS_OK;
}

static void extended_close(ls_file *file) {
    ls_file_close(((extended_file *)file)->below);
    free(file);
}

static const ls_file_operations extended_operations = {
    .read = extended_read,
    .write = extended_write,
    .sync = extended_sync,
    .truncate = extended_truncate,
    .size = extended_size,
    .close = extended_close,
};

ls_status ls_file_extend(ls_file *below, int64_t position, const uint8_t *bytes, size_t size, ls_file **out,
                         ls_fault *fault) {
    if (position < 0 || size == 0 || size > (size_t)INT32_MAX) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "bytes to extend a file by", position, INT32_MAX, (int64_t)size);
    }
    extended_file *extended = malloc(sizeof *extended + size);
    if (extended == NULL) return ls_fail(fault, LS_NO_MEMORY, "end of a file", position, (int64_t)size, 0);
    extended->file.operations = &extended_operations;
    extended->below = below;
    extended->position = position;
    extended->size = size;
    memcpy(extended->bytes, bytes, size);
    *out = &extended->file;
    return LS_OK;
}
