/* A test program is a list of functions without arguments:
 *
 *     static void test_reads_back(void) { CHECK_INT(1 + 1, 2); }
 *     int main(void) { RUN(test_reads_back); return check_result(); }
 *
 * CHECK* count a failure, print it and go on; REQUIRE* end the program, for what the rest needs.
 * They may be used from several threads. */
#ifndef LOGSTORE_TESTS_CHECK_H
#define LOGSTORE_TESTS_CHECK_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECK_PRINTED_MAX = 20 };

static atomic_ullong check_done_count;
static atomic_ullong check_failed_count;

#if defined(__GNUC__)
__attribute__((format(printf, 4, 5)))
#endif
static inline bool check_that(bool holds, const char *file, int line, const char *format, ...) {
    atomic_fetch_add_explicit(&check_done_count, 1, memory_order_relaxed);
    if (holds) return true;
    unsigned long long before = atomic_fetch_add(&check_failed_count, 1);
    if (before < CHECK_PRINTED_MAX) {
        char text[512];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        fprintf(stderr, "%s:%d: %s\n", file, line, text);
    }
    return false;
}

static inline bool check_int(long long actual, long long expected, const char *text, const char *file,
                             int line) {
    return check_that(actual == expected, file, line, "%s is %lld, expected %lld", text, actual, expected);
}

static inline bool check_hex(unsigned long long actual, unsigned long long expected, const char *text,
                             const char *file, int line) {
    return check_that(actual == expected, file, line, "%s is %#llx, expected %#llx", text, actual, expected);
}

static inline bool check_text(const char *actual, const char *expected, const char *text, const char *file,
                              int line) {
    bool holds = actual != NULL && expected != NULL && strcmp(actual, expected) == 0;
    return check_that(holds, file, line, "%s is \"%s\", expected \"%s\"", text, actual ? actual : "(null)",
                      expected ? expected : "(null)");
}

static inline bool check_bytes(const void *actual, const void *expected, size_t size, const char *text,
                               const char *file, int line) {
    const unsigned char *a = (const unsigned char *)actual;
    const unsigned char *e = (const unsigned char *)expected;
    size_t i = 0;
    while (i < size && a[i] == e[i]) i++;
    return i == size ? check_that(true, file, line, "%s", text)
                     : check_that(false, file, line, "%s differs at byte %zu of %zu: %#x, expected %#x", text,
                                  i, size, (unsigned)a[i], (unsigned)e[i]);
}

#define CHECK(condition) check_that((condition), __FILE__, __LINE__, "not true: %s", #condition)
/* With a printf format that says which case it was. */
#define CHECK_CASE(condition, ...) check_that((condition), __FILE__, __LINE__, __VA_ARGS__)
#define CHECK_INT(actual, expected) \
    check_int((long long)(actual), (long long)(expected), #actual, __FILE__, __LINE__)
#define CHECK_HEX(actual, expected) \
    check_hex((unsigned long long)(actual), (unsigned long long)(expected), #actual, __FILE__, __LINE__)
#define CHECK_TEXT(actual, expected) check_text((actual), (expected), #actual, __FILE__, __LINE__)
#define CHECK_BYTES(actual, expected, size) \
    check_bytes((actual), (expected), (size), #actual, __FILE__, __LINE__)

#define REQUIRE(condition) \
    do { \
        if (!CHECK(condition)) exit(1); \
    } while (0)
#define REQUIRE_INT(actual, expected) \
    do { \
        if (!CHECK_INT(actual, expected)) exit(1); \
    } while (0)

#define RUN(test) check_run(test, #test)

static inline void check_run(void (*test)(void), const char *name) {
    unsigned long long before = atomic_load(&check_failed_count);
    test();
    if (atomic_load(&check_failed_count) != before) fprintf(stderr, "FAILED %s\n", name);
}

/* What main returns. A program that checked nothing has failed. */
static inline int check_result(void) {
    unsigned long long done = atomic_load(&check_done_count);
    unsigned long long failed = atomic_load(&check_failed_count);
    if (failed > CHECK_PRINTED_MAX) fprintf(stderr, "... and %llu more\n", failed - CHECK_PRINTED_MAX);
    printf("%llu checks, %llu failed\n", done, failed);
    return failed == 0 && done > 0 ? 0 : 1;
}

#endif
