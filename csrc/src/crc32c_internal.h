/* Shared by the CRC-32C implementations: one file for each kind of CPU, crc32c.c chooses. */
#ifndef LOGSTORE_CRC32C_INTERNAL_H
#define LOGSTORE_CRC32C_INTERNAL_H

#include "logstore/crc32c.h"

/* Reflected: bit 31 is the coefficient of x^0. */
#define LS_CRC32C_POLYNOMIAL 0x82F63B78u

uint32_t ls_crc32c_portable(uint32_t crc, const uint8_t *bytes, size_t size);

#endif
