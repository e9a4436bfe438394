/* The golden vectors, which stand beside the Python tests: one file of raw batch bytes each. */
#ifndef LOGSTORE_TESTS_VECTOR_FILE_H
#define LOGSTORE_TESTS_VECTOR_FILE_H

#include "check.h"

typedef struct vector_file {
    uint8_t *bytes; /* of exactly that size, so that a sanitizer sees any step outside */
    uint8_t *end;
} vector_file;

static inline vector_file vector_file_read(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "../../tests/vectors/%s.bin", name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) fprintf(stderr, "cannot open %s\n", path);
    REQUIRE(file != NULL);
    REQUIRE(fseek(file, 0, SEEK_END) == 0);
    long size = ftell(file);
    REQUIRE(size > 0 && fseek(file, 0, SEEK_SET) == 0);
    uint8_t *bytes = malloc((size_t)size);
    REQUIRE(bytes != NULL);
    REQUIRE(fread(bytes, 1, (size_t)size, file) == (size_t)size);
    fclose(file);
    return (vector_file){bytes, bytes + size};
}

#endif
