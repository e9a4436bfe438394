/* File identities: Linux has them, other systems say so. */
#if defined(__linux__)
#define _GNU_SOURCE /* syscall */
#endif

#include "logstore/file_identity.h"

#if defined(__linux__) && __has_include(<sys/syscall.h>)
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Asked by number and read by position, since C libraries got statx late, and its newer fields later. */
#if defined(SYS_statx)

enum {
    BUFFER_BYTES = 256,
    MASK_AT = 0,
    INODE_AT = 32,
    BIRTH_SECONDS_AT = 80,
    BIRTH_NANOSECONDS_AT = 88,
    DEVICE_MAJOR_AT = 136,
    DEVICE_MINOR_AT = 140,
    MOUNT_ID_AT = 144,
    WANTS_INODE = 0x100,
    WANTS_BIRTH = 0x800,
    WANTS_MOUNT_ID = 0x1000,
    WANTS_UNIQUE_MOUNT_ID = 0x4000 /* Linux 6.8: never used again until the next boot */
};

static uint32_t u32_at(const uint8_t *buffer, size_t position) {
    uint32_t value;
    memcpy(&value, buffer + position, sizeof value);
    return value;
}

static uint64_t u64_at(const uint8_t *buffer, size_t position) {
    uint64_t value;
    memcpy(&value, buffer + position, sizeof value);
    return value;
}

static int is_local(uint64_t kind) {
    switch (kind) {
    case 0xEF53:     /* ext2, ext3, ext4 */
    case 0x58465342: /* xfs */
    case 0x9123683E: /* btrfs */
    case 0x01021994: /* tmpfs */
    case 0xF2F52010: /* f2fs */
    case 0x794C7630: /* overlayfs, whose upper layer is one of these */
        return 1;
    default: return 0;
    }
}

ls_status ls_file_identify(const char *path, ls_file_identity *out, ls_fault *fault) {
    uint8_t buffer[BUFFER_BYTES];
    memset(buffer, 0, sizeof buffer);
    struct statfs system;
    long refused = syscall(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW,
                           WANTS_INODE | WANTS_BIRTH | WANTS_MOUNT_ID | WANTS_UNIQUE_MOUNT_ID, buffer);
    if (refused != 0 && (errno == ENOSYS || errno == EPERM)) /* EPERM: of a sandbox that does not know the call */
        return ls_fail(fault, LS_UNSUPPORTED, "the system has no statx", -1, 0, errno);
    if (refused != 0 || statfs(path, &system) != 0) {
        int os_errno = errno;
        ls_fail(fault, LS_IO, "identify", -1, 0, 0);
        fault->os_errno = os_errno;
        return LS_IO;
    }
    uint32_t found = u32_at(buffer, MASK_AT);
    if ((found & WANTS_INODE) == 0 || (found & WANTS_BIRTH) == 0 ||
        (found & (WANTS_MOUNT_ID | WANTS_UNIQUE_MOUNT_ID)) == 0) {
        return ls_fail(fault, LS_UNSUPPORTED, "the file system does not identify its files", -1, 0, (int64_t)found);
    }
    if (!is_local((uint64_t)system.f_type & UINT32_MAX)) {
        return ls_fail(fault, LS_UNSUPPORTED, "not known as a local file system", -1, 0, (int64_t)system.f_type);
    }
    int64_t seconds = (int64_t)u64_at(buffer, BIRTH_SECONDS_AT);
    if (seconds < 0 || seconds > INT64_MAX / 1000000000 - 1) seconds = 0;
    *out = (ls_file_identity){
        .mount_id = u64_at(buffer, MOUNT_ID_AT),
        .device = (uint64_t)u32_at(buffer, DEVICE_MAJOR_AT) << 32 | u32_at(buffer, DEVICE_MINOR_AT),
        .inode = u64_at(buffer, INODE_AT),
        .birth_ns = seconds * 1000000000 + (int64_t)u32_at(buffer, BIRTH_NANOSECONDS_AT),
    };
    return LS_OK;
}

#define HAS_IDENTITIES
#endif
#endif

#if !defined(HAS_IDENTITIES)
ls_status ls_file_identify(const char *path, ls_file_identity *out, ls_fault *fault) {
    (void)path;
    (void)out;
    return ls_fail(fault, LS_UNSUPPORTED, "the system does not identify its files", -1, 0, 0);
}
#endif
