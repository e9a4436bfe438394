/* An ls_file in memory that counts what is asked of it, and fails when told to. For tests. */
#ifndef LOGSTORE_TESTS_FAULTY_FILE_H
#define LOGSTORE_TESTS_FAULTY_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logstore/file.h"

enum { FAULTY_NEVER = -1 };

typedef enum faulty_operation {
    FAULTY_READ = 0,
    FAULTY_WRITE,
    FAULTY_SYNC,
    FAULTY_TRUNCATE,
    FAULTY_SIZE,
    FAULTY_OPERATIONS_COUNT
} faulty_operation;

typedef struct faulty_file {
    ls_file file; /* what is handed to the code under test */
    uint8_t *bytes;
    size_t size;
    size_t capacity;
    bool is_closed;

    int calls;                             /* of any operation since the start */
    int calls_of[FAULTY_OPERATIONS_COUNT]; /* and of each */
    int64_t bytes_read;
    size_t largest_read;
    int64_t written_back_from; /* what was asked for last */
    int64_t written_back_bytes;
    bool can_reserve;
    int64_t reserved_from; /* the same */
    int64_t reserved_bytes;
    int reservations_count;

    /* Call number `fail_call` (from 0) fails, and all after it if `fail_goes_on`. */
    int fail_call;
    bool fail_goes_on;
    ls_status fail_status; /* LS_IO or LS_DISK_FULL */
    size_t torn_bytes;     /* of a failing write still get into the file */
    int failed_count;
} faulty_file;

/* A file with these bytes (NULL if size is 0); never fails before fail_call is set. */
void faulty_file_init(faulty_file *faulty, const uint8_t *bytes, size_t size);
/* Works on a closed file: closing keeps the bytes, for the test to look at. */
void faulty_file_free(faulty_file *faulty);
/* Open again after a close, with no failure planned and all counts at 0. */
void faulty_file_reopen(faulty_file *faulty);
/* The call `calls_from_now` (0: the next) is going to fail. */
void faulty_file_fail(faulty_file *faulty, int calls_from_now, ls_status status, bool goes_on,
                      size_t torn_bytes);

#endif
