/* Which file a name stands for, and since which mount: what must not have changed for the page cache to be the one that
 * was written to. */
#ifndef LOGSTORE_FILE_IDENTITY_H
#define LOGSTORE_FILE_IDENTITY_H

#include <stdint.h>

#include "logstore/status.h"

/* No two files of one boot have the same, also where an inode is used again, a copy takes a file's name, or a disk is
 * pulled out and mounted again. (Kernels before 6.8 number mounts so that a later one may get the number of an
 * earlier one.) */
typedef struct ls_file_identity {
    uint64_t mount_id;
    uint64_t device;
    uint64_t inode;
    int64_t birth_ns;
} ls_file_identity;

/* Of a file or directory; a symbolic link at the last step is not followed. LS_UNSUPPORTED: the system can't say, or the
 * file system is none of those known to keep what was written in this machine's page cache (network file
 * systems, FUSE). LS_IO: the system refused. Thread-safe. */
ls_status ls_file_identify(const char *path, ls_file_identity *out, ls_fault *fault);

#endif
