/* Varints as records use them: zigzag, then base 128, little end first (log-format, section 1.5).
 * Readers take an end pointer and advance *at only on LS_OK. Thread-safe. */
#ifndef LOGSTORE_VARINT_H
#define LOGSTORE_VARINT_H

#include <stddef.h>
#include <stdint.h>

#include "logstore/status.h"

enum { LS_VARINT32_BYTES_MAX = 5, LS_VARINT64_BYTES_MAX = 10 };

/* LS_OK, LS_TORN (input ended inside) or LS_CORRUPT (continuation bit on the last possible byte).
 * Bits beyond the 32nd of a fifth byte are dropped, over-long encodings accepted, as Kafka does. */
ls_status ls_varint32_read(const uint8_t **at, const uint8_t *end, int32_t *value);
ls_status ls_varint64_read(const uint8_t **at, const uint8_t *end, int64_t *value);

/* Writes at most 5 / 10 bytes and returns the position behind them. */
uint8_t *ls_varint32_write(uint8_t *at, int32_t value);
uint8_t *ls_varint64_write(uint8_t *at, int64_t value);

size_t ls_varint32_size_bytes(int32_t value);
size_t ls_varint64_size_bytes(int64_t value);

#endif
