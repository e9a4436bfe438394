#include "crc32c_internal.h"

uint32_t ls_crc32c_portable(uint32_t crc, const uint8_t *bytes, size_t size) {
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (LS_CRC32C_POLYNOMIAL & (0u - (crc & 1u)));
    }
    return ~crc;
}
