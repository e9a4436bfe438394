/* Maps of files on Linux; elsewhere none. */
#if defined(__linux__)
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#endif

#include "file_map.h"

#if defined(__linux__)

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/vfs.h>

/* File systems that store into bytes written before without asking for more space. One that copies on write, as
 * XFS does with a file that was copied by reference, would answer a store on a full disk with SIGBUS. */
static bool overwrites_in_place(int descriptor) {
    enum { EXT = 0xef53, TMPFS = 0x01021994 };
    struct statfs about;
    if (fstatfs(descriptor, &about) != 0) return false;
    return about.f_type == EXT || about.f_type == TMPFS;
}

ls_status ls_file_map(ls_file *file, size_t size, void **out, ls_fault *fault) {
    int descriptor = ls_file_descriptor(file);
    if (descriptor < 0 || !overwrites_in_place(descriptor)) {
        return ls_fail(fault, LS_UNSUPPORTED, "map of a file", -1, 0, 0);
    }
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, 0);
    if (map == MAP_FAILED) {
        int os_errno = errno;
        ls_fail(fault, LS_IO, "map", -1, 0, 0);
        fault->os_errno = os_errno;
        return LS_IO;
    }
    /* In memory for good: a page that had to be read back could meet a disk that fails. */
    if (mlock(map, size) != 0) {
        int os_errno = errno;
        munmap(map, size);
        ls_fail(fault, LS_IO, "lock a map in memory", -1, 0, 0);
        fault->os_errno = os_errno;
        return LS_IO;
    }
    *out = map;
    return LS_OK;
}

void ls_file_unmap(void *map, size_t size) { munmap(map, size); }

#else

ls_status ls_file_map(ls_file *file, size_t size, void **out, ls_fault *fault) {
    (void)file;
    (void)size;
    (void)out;
    return ls_fail(fault, LS_UNSUPPORTED, "map of a file", -1, 0, 0);
}

void ls_file_unmap(void *map, size_t size) {
    (void)map;
    (void)size;
}

#endif
