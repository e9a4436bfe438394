/* The only door to the disk: positioned reads and appends through a small table of functions, so that a
 * failing, recording or crash-simulating file can stand in for the real one. */
#ifndef LOGSTORE_FILE_H
#define LOGSTORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logstore/status.h"

typedef struct ls_file ls_file;

/* Every function returns LS_OK or fills the fault (reason: the operation's name, os_errno, position).
 * Reads and writes loop over EINTR and short transfers with what remains. */
typedef struct ls_file_operations {
    /* Reads up to size bytes; *got < size only at the end of the file. */
    ls_status (*read)(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got, ls_fault *fault);
    /* Writes all bytes or fails; after a failure an unknown part may be in the file. */
    ls_status (*write)(ls_file *file, int64_t position, const uint8_t *bytes, size_t size, ls_fault *fault);
    /* fdatasync: data, and the size if it grew. */
    ls_status (*sync)(ls_file *file, ls_fault *fault);
    ls_status (*truncate)(ls_file *file, int64_t size, ls_fault *fault);
    ls_status (*size)(ls_file *file, int64_t *size, ls_fault *fault);
    /* Frees the file; close's own error is ignored (what counts is sync). */
    void (*close)(ls_file *file);
    /* Has the disk begin with what was written there, and does not wait for it: a hint that may do nothing, and says
     * nothing about what is on disk. sync reports what fails then. NULL where there is no such thing. */
    void (*write_back)(ls_file *file, int64_t position, int64_t size);
    /* Has the file given blocks for these bytes, of which some or all lie behind its end; its size and content stay as they
     * are, and truncate gives back those behind the end. Whether it was. NULL where there is no such thing. */
    bool (*reserve)(ls_file *file, int64_t position, int64_t size);
    /* As read, in one system call: *got < size does not say that the file ends there. NULL where that is no quicker. */
    ls_status (*read_once)(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got, ls_fault *fault);
} ls_file_operations;

struct ls_file {
    const ls_file_operations *operations;
};

enum {
    LS_FILE_READ = 0,          /* read only */
    LS_FILE_WRITE = 1,         /* read and write an existing file */
    LS_FILE_CREATE = 2         /* create a new one for reading and writing; fails where one exists */
};

/* Opens a regular file of the operating system: never follows a symbolic link at the last step, never blocks
 * on a FIFO, close-on-exec, mode 0640. LS_IO with reason "open" (os_errno says why), or LS_IO, "not a regular file". */
ls_status ls_file_open(const char *path, int mode, ls_file **out, ls_fault *fault);

/* A file to read that holds the bytes given, which are copied, and is in memory alone. LS_INVALID_ARGUMENT: over 2^31-1
 * bytes; LS_NO_MEMORY. */
ls_status ls_file_in_memory(const uint8_t *bytes, size_t size, ls_file **out, ls_fault *fault);

/* The operations, by name. */
static inline ls_status ls_file_read(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got,
                                     ls_fault *fault) {
    return file->operations->read(file, position, out, size, got, fault);
}

static inline ls_status ls_file_read_once(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got,
                                          ls_fault *fault) {
    if (file->operations->read_once == NULL) return ls_file_read(file, position, out, size, got, fault);
    return file->operations->read_once(file, position, out, size, got, fault);
}
static inline ls_status ls_file_write(ls_file *file, int64_t position, const uint8_t *bytes, size_t size,
                                      ls_fault *fault) {
    return file->operations->write(file, position, bytes, size, fault);
}
static inline ls_status ls_file_sync(ls_file *file, ls_fault *fault) {
    return file->operations->sync(file, fault);
}
static inline ls_status ls_file_truncate(ls_file *file, int64_t size, ls_fault *fault) {
    return file->operations->truncate(file, size, fault);
}
static inline ls_status ls_file_size(ls_file *file, int64_t *size, ls_fault *fault) {
    return file->operations->size(file, size, fault);
}
static inline void ls_file_write_back(ls_file *file, int64_t position, int64_t size) {
    if (file->operations->write_back != NULL) file->operations->write_back(file, position, size);
}
static inline bool ls_file_reserve(ls_file *file, int64_t position, int64_t size) {
    return file->operations->reserve != NULL && file->operations->reserve(file, position, size);
}
static inline void ls_file_close(ls_file *file) { file->operations->close(file); }

typedef struct ls_file_facts {
    int64_t size_bytes; /* -1: there is no such file */
    int64_t modified_ms;
} ls_file_facts;

/* Size and time of the last write of the .log files of a directory, by their base offsets, without opening them.
 * LS_IO: the directory can't be opened, or a file not be looked at. */
ls_status ls_file_look_at_logs(const char *directory, const int64_t *base_offsets, size_t count, ls_file_facts *out,
                               ls_fault *fault);

/* How many descriptors the process may have open at a time (RLIMIT_NOFILE). */
int64_t ls_descriptors_max(void);

/* The descriptor behind a file made by ls_file_open, for the rare caller that needs it; -1 for others. */
int ls_file_descriptor(const ls_file *file);

#endif
