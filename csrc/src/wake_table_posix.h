/* What a wake table needs of the operating system. */
#ifndef LOGSTORE_WAKE_TABLE_POSIX_H
#define LOGSTORE_WAKE_TABLE_POSIX_H

#include <stdbool.h>

#include "logstore/wake_table.h"

typedef enum ls_word_wait { LS_WORD_WOKEN, LS_WORD_TIMED_OUT, LS_WORD_INTERRUPTED } ls_word_wait;

/* Sleeps while the word, which other processes map, has this value: for `timeout_ns` at most, below 0 without end. */
ls_word_wait ls_word_sleep(_Atomic uint32_t *word, uint32_t value, int64_t timeout_ns);

/* Wakes one who sleeps on it. */
void ls_word_wake(_Atomic uint32_t *word);

/* A lock on one byte of a file that ends with whoever has the file open; not waited for. */
bool ls_byte_lock(ls_file *file, int64_t position);
void ls_byte_unlock(ls_file *file, int64_t position);

long ls_process_number(void);

#endif
