/* A file that is in memory alone. */
#include <stdlib.h>
#include <string.h>

#include "logstore/file.h"

typedef struct memory_file {
    ls_file file;
    size_t size;
    uint8_t bytes[];
} memory_file;

static ls_status memory_read(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got,
                             ls_fault *fault) {
    const memory_file *memory = (const memory_file *)file;
    if (position < 0) return ls_fail(fault, LS_INVALID_ARGUMENT, "position to read at", position, 0, position);
    size_t available = (uint64_t)position < memory->size ? memory->size - (size_t)position : 0;
    *got = size < available ? size : available;
    if (*got > 0) memcpy(out, memory->bytes + position, *got);
    return LS_OK;
}

static ls_status refuse(const char *operation, ls_fault *fault) {
    return ls_fail(fault, LS_INVALID_ARGUMENT, operation, -1, 0, 0);
}

static ls_status memory_write(ls_file *file, int64_t position, const uint8_t *bytes, size_t size,
                              ls_fault *fault) {
    (void)file, (void)position, (void)bytes, (void)size;
    return refuse("a file in memory is not written", fault);
}

static ls_status memory_sync(ls_file *file, ls_fault *fault) {
    (void)file;
    return refuse("a file in memory is not synced", fault);
}

static ls_status memory_truncate(ls_file *file, int64_t size, ls_fault *fault) {
    (void)file, (void)size;
    return refuse("a file in memory is not truncated", fault);
}

static ls_status memory_size(ls_file *file, int64_t *size, ls_fault *fault) {
    (void)fault;
    *size = (int64_t)((const memory_file *)file)->size;
    return LS_OK;
}

static void memory_close(ls_file *file) { free(file); }

static const ls_file_operations memory_operations = {
    .read = memory_read,
    .write = memory_write,
    .sync = memory_sync,
    .truncate = memory_truncate,
    .size = memory_size,
    .close = memory_close,
};

ls_status ls_file_in_memory(const uint8_t *bytes, size_t size, ls_file **out, ls_fault *fault) {
    if (size > (size_t)INT32_MAX) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "bytes of a file in memory", -1, INT32_MAX, (int64_t)size);
    }
    memory_file *memory = malloc(sizeof *memory + size);
    if (memory == NULL) return ls_fail(fault, LS_NO_MEMORY, "file in memory", -1, (int64_t)size, 0);
    memory->file.operations = &memory_operations;
    memory->size = size;
    if (size > 0) memcpy(memory->bytes, bytes, size);
    *out = &memory->file;
    return LS_OK;
}
