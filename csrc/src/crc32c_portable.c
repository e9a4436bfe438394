/* Slicing by 8: eight look-ups that don't wait for each other advance the CRC by eight bytes. */
#include "crc32c_internal.h"

uint32_t ls_crc32c_portable(uint32_t crc, const uint8_t *bytes, size_t size) {
    crc = ~crc;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint32_t low = ls_crc32c_load32(bytes) ^ crc;
        uint32_t high = ls_crc32c_load32(bytes + 4);
        /* The four that don't depend on the CRC so far are added up first. */
        crc = (ls_crc32c_slices[3][high & 0xff] ^ ls_crc32c_slices[2][high >> 8 & 0xff] ^
               ls_crc32c_slices[1][high >> 16 & 0xff] ^ ls_crc32c_slices[0][high >> 24]) ^
              ((ls_crc32c_slices[7][low & 0xff] ^ ls_crc32c_slices[6][low >> 8 & 0xff]) ^
               (ls_crc32c_slices[5][low >> 16 & 0xff] ^ ls_crc32c_slices[4][low >> 24]));
    }
    for (; size > 0; bytes++, size--) crc = crc >> 8 ^ ls_crc32c_slices[0][(crc ^ *bytes) & 0xff];
    return ~crc;
}
