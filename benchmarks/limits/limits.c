/* The floor under every figure: the same bytes through the same system calls, with nothing around them.
 * Compiled at run time with the CRC sources of csrc/. Every function returns 0, or errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "logstore/crc32c.h"

static int write_all(int file, const uint8_t *bytes, size_t size, off_t position) {
    while (size > 0) {
        ssize_t written = pwrite(file, bytes, size, position);
        if (written < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno;
        }
        bytes += written;
        size -= (size_t)written;
        position += written;
    }
    return 0;
}

static int sync_file(int file) {
#ifdef __APPLE__
    return fcntl(file, F_FULLFSYNC) == 0 ? 0 : errno;
#else
    return fdatasync(file) == 0 ? 0 : errno;
#endif
}

/* `size` bytes in writes of `block`. */
int limit_write(int file, const uint8_t *bytes, size_t size, size_t block) {
    for (size_t at = 0; at < size; at += block) {
        size_t part = size - at < block ? size - at : block;
        int failure = write_all(file, bytes + at, part, (off_t)at);
        if (failure != 0) {
            return failure;
        }
    }
    return 0;
}

/* The same, each block first copied into one reused buffer and checksummed, as a batch must be. */
int limit_copy_checksum_write(int file, const uint8_t *bytes, size_t size, uint8_t *buffer, size_t block,
                              uint32_t *checksum) {
    *checksum = 0;
    for (size_t at = 0; at < size; at += block) {
        size_t part = size - at < block ? size - at : block;
        memcpy(buffer, bytes + at, part);
        *checksum = ls_crc32c_extend(*checksum, buffer, part);
        int failure = write_all(file, buffer, part, (off_t)at);
        if (failure != 0) {
            return failure;
        }
    }
    return 0;
}

/* `count` writes of `record` bytes each, one after the other, each followed by fdatasync if `sync`. */
int limit_write_each(int file, const uint8_t *bytes, size_t record, size_t count, int sync) {
    for (size_t i = 0; i < count; i++) {
        int failure = write_all(file, bytes + i * record, record, (off_t)(i * record));
        if (failure == 0 && sync) {
            failure = sync_file(file);
        }
        if (failure != 0) {
            return failure;
        }
    }
    return 0;
}

/* The whole file through one reused buffer; *checksum over all of it when asked for. EIO: it is shorter. */
int limit_read(int file, size_t size, uint8_t *buffer, size_t block, uint32_t *checksum) {
    uint32_t crc = 0;
    for (size_t at = 0; at < size;) {
        ssize_t got = pread(file, buffer, size - at < block ? size - at : block, (off_t)at);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno;
        }
        if (got == 0) {
            return EIO;
        }
        if (checksum != NULL) {
            crc = ls_crc32c_extend(crc, buffer, (size_t)got);
        }
        at += (size_t)got;
    }
    if (checksum != NULL) {
        *checksum = crc;
    }
    return 0;
}

/* Memory to memory, block by block into one reused buffer. */
int limit_copy(const uint8_t *bytes, size_t size, uint8_t *buffer, size_t block) {
    for (size_t at = 0; at < size; at += block) {
        memcpy(buffer, bytes + at, size - at < block ? size - at : block);
        __asm__ volatile("" : : "r"(buffer) : "memory"); /* the copy is the work: keep it */
    }
    return 0;
}

/* `count` reads of `block` bytes at the positions given, each checksummed when `checksum` is not NULL (it becomes the
 * CRC of the last): what any look-up in a file must do. */
int limit_read_at(int file, const int64_t *positions, size_t count, uint8_t *buffer, size_t block, uint32_t *checksum) {
    for (size_t i = 0; i < count; i++) {
        ssize_t got = pread(file, buffer, block, (off_t)positions[i]);
        if (got <= 0) {
            return got < 0 ? errno : EIO;
        }
        if (checksum != NULL) {
            *checksum = ls_crc32c_extend(0, buffer, (size_t)got);
        }
    }
    return 0;
}

uint32_t limit_checksum(const uint8_t *bytes, size_t size) { return ls_crc32c_extend(0, bytes, size); }
