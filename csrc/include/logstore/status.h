/* Status codes and fault reports: how every function of the core says what went wrong.
 *
 * A function that can fail returns an ls_status and takes an `ls_fault *fault` owned by the caller,
 * which must not be NULL. On LS_OK and LS_END the fault is untouched; on anything else every field
 * is filled in. Nothing else has moved: a failed call leaves its outputs and its object as they were,
 * unless its comment says otherwise. */
#ifndef LOGSTORE_STATUS_H
#define LOGSTORE_STATUS_H

#include <stdint.h>

typedef enum ls_status {
    LS_OK = 0,
    LS_END,              /* a scan or an iterator is exhausted; not an error */
    LS_TORN,             /* the input stops in the middle of a batch */
    LS_CORRUPT,          /* the bytes break a rule of the format */
    LS_UNSUPPORTED,      /* a format this version does not know: older or newer than ours */
    LS_INVALID_ARGUMENT, /* the caller asked for something impossible */
    LS_TOO_LARGE,        /* over a limit that the caller set or the format has */
    LS_FULL,             /* a fixed capacity is used up: hand over, or roll */
    LS_OUT_OF_RANGE,     /* an offset outside of what is stored */
    LS_NO_MEMORY,
    LS_IO,               /* the operating system refused; see os_errno */
    LS_DISK_FULL,        /* ENOSPC or EDQUOT; nothing of the call is on disk */
    LS_NO_DESCRIPTOR,    /* no file could be opened for the call, of which nothing was done; it may work later */
    LS_STATUS_COUNT      /* how many there are; never returned */
} ls_status;

typedef struct ls_fault {
    ls_status status;
    int os_errno;          /* 0 unless the operating system refused */
    const char *reason;    /* static text: the rule that was broken, or the operation refused */
    int64_t position;      /* byte position in the file or buffer; -1 where there is none */
    int64_t expected;      /* meaningful together, by the reason's words */
    int64_t actual;
} ls_fault;

/* Fills in a fault and returns its status, so that a check is one line. */
static inline ls_status ls_fail(ls_fault *fault, ls_status status, const char *reason,
                                int64_t position, int64_t expected, int64_t actual) {
    fault->status = status;
    fault->os_errno = 0;
    fault->reason = reason;
    fault->position = position;
    fault->expected = expected;
    fault->actual = actual;
    return status;
}

/* The constant's name without its prefix ("CORRUPT"); "UNKNOWN" for a value out of range. */
const char *ls_status_name(ls_status status);

#endif
