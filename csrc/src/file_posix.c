/* Files of a POSIX system. The only source file that names a system call. */
#if defined(__APPLE__)
#define _DARWIN_C_SOURCE /* F_FULLFSYNC */
#elif defined(__linux__)
#define _GNU_SOURCE /* sync_file_range, fallocate */
#else
#define _POSIX_C_SOURCE 200809L
#endif
#define _FILE_OFFSET_BITS 64

#include "file_posix.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) >= sizeof(int64_t), "file positions have 64 bits");

enum { TRANSFER_BYTES_MAX = 1 << 30 }; /* macOS refuses more than INT_MAX at once, Linux shortens it */

typedef struct posix_file {
    ls_file file;
    int descriptor;
} posix_file;

static int descriptor_of(const ls_file *file) { return ((const posix_file *)file)->descriptor; }

static ls_status fail_with_errno(ls_fault *fault, const char *operation, int64_t position, int os_errno) {
    ls_status status = os_errno == ENOSPC || os_errno == EDQUOT ? LS_DISK_FULL : LS_IO;
    ls_fail(fault, status, operation, position, 0, 0);
    fault->os_errno = os_errno;
    return status;
}

static size_t transfer_bytes(size_t remaining) {
    return remaining < (size_t)TRANSFER_BYTES_MAX ? remaining : (size_t)TRANSFER_BYTES_MAX;
}

ls_status ls_descriptor_read(int descriptor, int64_t position, uint8_t *out, size_t size, size_t *got, ls_fault *fault) {
    size_t done = 0;
    while (done < size) {
        ssize_t n =
            pread(descriptor, out + done, transfer_bytes(size - done), (off_t)(position + (int64_t)done));
        if (n == 0) break;
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail_with_errno(fault, "read", position + (int64_t)done, errno);
        }
        done += (size_t)n;
    }
    *got = done;
    return LS_OK;
}

ls_status ls_descriptor_read_once(int descriptor, int64_t position, uint8_t *out, size_t size, size_t *got,
                                  ls_fault *fault) {
    ssize_t n;
    do n = pread(descriptor, out, transfer_bytes(size), (off_t)position);
    while (n < 0 && errno == EINTR);
    if (n < 0) return fail_with_errno(fault, "read", position, errno);
    *got = (size_t)n;
    return LS_OK;
}

ls_status ls_descriptor_write(int descriptor, int64_t position, const uint8_t *bytes, size_t size, ls_fault *fault) {
    size_t done = 0;
    while (done < size) {
        ssize_t n =
            pwrite(descriptor, bytes + done, transfer_bytes(size - done), (off_t)(position + (int64_t)done));
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail_with_errno(fault, "write", position + (int64_t)done, errno);
        }
        /* No progress and no reason: trying again could go on forever. */
        if (n == 0) return fail_with_errno(fault, "write", position + (int64_t)done, EIO);
        done += (size_t)n;
    }
    return LS_OK;
}

ls_status ls_descriptor_sync(int descriptor, ls_fault *fault) {
    int result;
#if defined(__APPLE__)
    /* fsync there leaves the data in the drive's cache. File systems without F_FULLFSYNC have only fsync. */
    do result = fcntl(descriptor, F_FULLFSYNC);
    while (result < 0 && errno == EINTR);
    if (result < 0 && (errno == ENOTSUP || errno == ENOTTY || errno == EINVAL)) {
        do result = fsync(descriptor);
        while (result < 0 && errno == EINTR);
    }
#else
    do result = fdatasync(descriptor);
    while (result < 0 && errno == EINTR);
#endif
    return result == 0 ? LS_OK : fail_with_errno(fault, "sync", -1, errno);
}

void ls_descriptor_write_back(int descriptor, int64_t position, int64_t size) {
#if defined(__linux__)
    /* Its failures are those of the pages, which fdatasync reports. */
    (void)sync_file_range(descriptor, (off_t)position, (off_t)size, SYNC_FILE_RANGE_WRITE);
#else
    (void)descriptor, (void)position, (void)size;
#endif
}

bool ls_descriptor_reserve(int descriptor, int64_t position, int64_t size) {
#if defined(__linux__)
    int result;
    do result = fallocate(descriptor, FALLOC_FL_KEEP_SIZE, (off_t)position, (off_t)size);
    while (result < 0 && errno == EINTR);
    if (result == 0) return true;
    struct stat about; /* what a full disk has given nevertheless goes back */
    if ((errno == ENOSPC || errno == EDQUOT) && fstat(descriptor, &about) == 0) (void)!ftruncate(descriptor, about.st_size);
#else
    (void)descriptor, (void)position, (void)size;
#endif
    return false;
}

ls_status ls_descriptor_truncate(int descriptor, int64_t size, ls_fault *fault) {
    int result;
    do result = ftruncate(descriptor, (off_t)size);
    while (result < 0 && errno == EINTR);
    return result == 0 ? LS_OK : fail_with_errno(fault, "truncate", size, errno);
}

ls_status ls_descriptor_size(int descriptor, int64_t *size, ls_fault *fault) {
    struct stat about;
    if (fstat(descriptor, &about) != 0) return fail_with_errno(fault, "size", -1, errno);
    *size = (int64_t)about.st_size;
    return LS_OK;
}

void ls_descriptor_close(int descriptor) { close(descriptor); }

static ls_descriptor_identity identity_of(const struct stat *about) {
    return (ls_descriptor_identity){(uint64_t)about->st_dev, (uint64_t)about->st_ino};
}

ls_status ls_descriptor_identify(int descriptor, ls_descriptor_identity *out, ls_fault *fault) {
    struct stat about;
    if (fstat(descriptor, &about) != 0) return fail_with_errno(fault, "stat", -1, errno);
    *out = identity_of(&about);
    return LS_OK;
}

ls_status ls_descriptor_open(const char *path, int mode, int *out, ls_descriptor_identity *identity, ls_fault *fault) {
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    switch (mode) {
    case LS_FILE_READ: flags |= O_RDONLY; break;
    case LS_FILE_WRITE: flags |= O_RDWR; break;
    case LS_FILE_CREATE: flags |= O_RDWR | O_CREAT | O_EXCL; break;
    default: return ls_fail(fault, LS_INVALID_ARGUMENT, "mode of opening", -1, LS_FILE_CREATE, mode);
    }
    int descriptor;
    do descriptor = open(path, flags, 0640);
    while (descriptor < 0 && errno == EINTR);
    if (descriptor < 0) return fail_with_errno(fault, "open", -1, errno);
    struct stat about;
    int os_errno = fstat(descriptor, &about) == 0 ? 0 : errno;
    if (os_errno != 0 || !S_ISREG(about.st_mode)) {
        close(descriptor);
        if (os_errno != 0) return fail_with_errno(fault, "open", -1, os_errno);
        return ls_fail(fault, LS_IO, "not a regular file", -1, 0, 0);
    }
    *out = descriptor;
    *identity = identity_of(&about);
    return LS_OK;
}

int64_t ls_descriptors_max(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > (rlim_t)INT32_MAX) return INT32_MAX;
    return (int64_t)limit.rlim_cur;
}

/* ---- files that keep their descriptor ---------------------------------------------------------- */

static ls_status posix_read(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got, ls_fault *fault) {
    return ls_descriptor_read(descriptor_of(file), position, out, size, got, fault);
}

static ls_status posix_write(ls_file *file, int64_t position, const uint8_t *bytes, size_t size, ls_fault *fault) {
    return ls_descriptor_write(descriptor_of(file), position, bytes, size, fault);
}

static ls_status posix_sync(ls_file *file, ls_fault *fault) { return ls_descriptor_sync(descriptor_of(file), fault); }

static ls_status posix_read_once(ls_file *file, int64_t position, uint8_t *out, size_t size, size_t *got, ls_fault *fault) {
    return ls_descriptor_read_once(descriptor_of(file), position, out, size, got, fault);
}

static void posix_write_back(ls_file *file, int64_t position, int64_t size) {
    ls_descriptor_write_back(descriptor_of(file), position, size);
}

static bool posix_reserve(ls_file *file, int64_t position, int64_t size) {
    return ls_descriptor_reserve(descriptor_of(file), position, size);
}

static ls_status posix_truncate(ls_file *file, int64_t size, ls_fault *fault) {
    return ls_descriptor_truncate(descriptor_of(file), size, fault);
}

static ls_status posix_size(ls_file *file, int64_t *size, ls_fault *fault) {
    return ls_descriptor_size(descriptor_of(file), size, fault);
}

static void posix_close(ls_file *file) { close(ls_file_release(file)); }

static const ls_file_operations posix_operations = {
    .read = posix_read,
    .write = posix_write,
    .sync = posix_sync,
    .truncate = posix_truncate,
    .size = posix_size,
    .close = posix_close,
    .write_back = posix_write_back,
    .reserve = posix_reserve,
    .read_once = posix_read_once,
};

ls_status ls_file_open(const char *path, int mode, ls_file **out, ls_fault *fault) {
    posix_file *opened = malloc(sizeof *opened);
    if (opened == NULL) return ls_fail(fault, LS_NO_MEMORY, "file", -1, (int64_t)sizeof *opened, 0);
    ls_descriptor_identity ignored;
    ls_status status = ls_descriptor_open(path, mode, &opened->descriptor, &ignored, fault);
    if (status != LS_OK) {
        free(opened);
        return status;
    }
    opened->file.operations = &posix_operations;
    *out = &opened->file;
    return LS_OK;
}

int ls_file_release(ls_file *file) {
    int descriptor = descriptor_of(file);
    free(file);
    return descriptor;
}

static int64_t modified_ms(const struct stat *about) {
#if defined(__APPLE__)
    const struct timespec *at = &about->st_mtimespec;
#else
    const struct timespec *at = &about->st_mtim;
#endif
    return (int64_t)at->tv_sec * 1000 + at->tv_nsec / 1000000;
}

ls_status ls_file_look_at_logs(const char *directory, const int64_t *base_offsets, size_t count,
                               ls_file_facts *out, ls_fault *fault) {
    int descriptor;
    do descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (descriptor < 0 && errno == EINTR);
    if (descriptor < 0) return fail_with_errno(fault, "open the directory", -1, errno);
    ls_status status = LS_OK;
    for (size_t i = 0; i < count && status == LS_OK; i++) {
        char name[32];
        struct stat about;
        snprintf(name, sizeof name, "%020" PRId64 ".log", base_offsets[i]);
        if (fstatat(descriptor, name, &about, 0) == 0)
            out[i] = (ls_file_facts){(int64_t)about.st_size, modified_ms(&about)};
        else if (errno == ENOENT)
            out[i] = (ls_file_facts){-1, 0};
        else
            status = fail_with_errno(fault, "stat", base_offsets[i], errno);
    }
    close(descriptor);
    return status;
}

int ls_file_descriptor(const ls_file *file) {
    return file->operations == &posix_operations ? descriptor_of(file) : -1;
}
