/* What files of the operating system are reached with: for those that keep their descriptor, and for those of a pool, which
 * may have to give it back. As the operations of ls_file. */
#ifndef LOGSTORE_FILE_POSIX_H
#define LOGSTORE_FILE_POSIX_H

#include "logstore/file.h"

/* Which file a descriptor stands for. */
typedef struct ls_descriptor_identity {
    uint64_t device;
    uint64_t inode;
} ls_descriptor_identity;

ls_status ls_descriptor_open(const char *path, int mode, int *out, ls_descriptor_identity *identity, ls_fault *fault);
ls_status ls_descriptor_identify(int descriptor, ls_descriptor_identity *out, ls_fault *fault);
ls_status ls_descriptor_read(int descriptor, int64_t position, uint8_t *out, size_t size, size_t *got, ls_fault *fault);
ls_status ls_descriptor_read_once(int descriptor, int64_t position, uint8_t *out, size_t size, size_t *got,
                                  ls_fault *fault);
ls_status ls_descriptor_write(int descriptor, int64_t position, const uint8_t *bytes, size_t size, ls_fault *fault);
ls_status ls_descriptor_sync(int descriptor, ls_fault *fault);
void ls_descriptor_write_back(int descriptor, int64_t position, int64_t size);
bool ls_descriptor_reserve(int descriptor, int64_t position, int64_t size);
ls_status ls_descriptor_truncate(int descriptor, int64_t size, ls_fault *fault);
ls_status ls_descriptor_size(int descriptor, int64_t *size, ls_fault *fault);
void ls_descriptor_close(int descriptor);

/* Frees a file made by ls_file_open, and leaves its descriptor open: that is the caller's. */
int ls_file_release(ls_file *file);

#endif
