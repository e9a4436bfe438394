/* Slicing by 8: eight look-ups that don't wait for each other advance the CRC by eight bytes. */
#include "crc32c_internal.h"

uint32_t ls_crc32c_portable(uint32_t crc, const uint8_t *bytes, size_t size) {
    crc = ~crc;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t word = ls_crc32c_load64(bytes) ^ crc;
        crc = ls_crc32c_slices[7][word & 0xff] ^ ls_crc32c_slices[6][word >> 8 & 0xff] ^
              ls_crc32c_slices[5][word >> 16 & 0xff] ^ ls_crc32c_slices[4][word >> 24 & 0xff] ^
              ls_crc32c_slices[3][word >> 32 & 0xff] ^ ls_crc32c_slices[2][word >> 40 & 0xff] ^
              ls_crc32c_slices[1][word >> 48 & 0xff] ^ ls_crc32c_slices[0][word >> 56];
    }
    for (; size > 0; bytes++, size--) crc = crc >> 8 ^ ls_crc32c_slices[0][(crc ^ *bytes) & 0xff];
    return ~crc;
}
