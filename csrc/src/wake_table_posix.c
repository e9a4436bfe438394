/* Words and locks that processes share, on Linux; elsewhere none. */
#if defined(__linux__)
#define _GNU_SOURCE /* locks of an open file, not of a process */
#define _FILE_OFFSET_BITS 64
#endif

#include "wake_table_posix.h"

#if defined(__linux__)

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if !defined(SYS_futex)
#define SYS_futex SYS_futex_time64
#endif

ls_word_wait ls_word_sleep(_Atomic uint32_t *word, uint32_t value, int64_t timeout_ns) {
    struct timespec timeout = {0};
    if (timeout_ns >= 0) {
        timeout.tv_sec = (time_t)(timeout_ns / 1000000000);
        timeout.tv_nsec = (long)(timeout_ns % 1000000000);
    }
    if (syscall(SYS_futex, word, FUTEX_WAIT, value, timeout_ns >= 0 ? &timeout : NULL, NULL, 0) == 0)
        return LS_WORD_WOKEN;
    if (errno == EINTR) return LS_WORD_INTERRUPTED;
    return errno == ETIMEDOUT ? LS_WORD_TIMED_OUT : LS_WORD_WOKEN;
}

void ls_word_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); }

static bool set_lock(ls_file *file, int64_t position, short kind) {
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = (off_t)position, .l_len = 1};
    return fcntl(ls_file_descriptor(file), F_OFD_SETLK, &lock) == 0;
}

bool ls_byte_lock(ls_file *file, int64_t position) { return set_lock(file, position, F_WRLCK); }

void ls_byte_unlock(ls_file *file, int64_t position) { set_lock(file, position, F_UNLCK); }

long ls_process_number(void) { return (long)getpid(); }

#else

/* Never called: no table can be mapped. */

ls_word_wait ls_word_sleep(_Atomic uint32_t *word, uint32_t value, int64_t timeout_ns) {
    (void)word;
    (void)value;
    (void)timeout_ns;
    return LS_WORD_TIMED_OUT;
}

void ls_word_wake(_Atomic uint32_t *word) { (void)word; }

bool ls_byte_lock(ls_file *file, int64_t position) {
    (void)file;
    (void)position;
    return false;
}

void ls_byte_unlock(ls_file *file, int64_t position) {
    (void)file;
    (void)position;
}

long ls_process_number(void) { return 0; }

#endif
