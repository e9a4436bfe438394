/* crc32c_armv8.c once more, with the polynomial multiply for the joins. */
#define LS_CRC32C_ARM_PMULL 1
#include "crc32c_armv8.c"
