#include "check.h"
#include "logstore/varint.h"

typedef struct sample {
    int64_t value;
    size_t size;
    uint8_t bytes[LS_VARINT64_BYTES_MAX];
} sample;

/* The table of the format's description, and the edges of each size. */
static const sample samples32[] = {
    {0, 1, {0x00}},
    {-1, 1, {0x01}},
    {1, 1, {0x02}},
    {63, 1, {0x7e}},
    {-64, 1, {0x7f}},
    {64, 2, {0x80, 0x01}},
    {-65, 2, {0x81, 0x01}},
    {300, 2, {0xd8, 0x04}},
    {8191, 2, {0xfe, 0x7f}},
    {-8192, 2, {0xff, 0x7f}},
    {8192, 3, {0x80, 0x80, 0x01}},
    {1048575, 3, {0xfe, 0xff, 0x7f}},
    {1048576, 4, {0x80, 0x80, 0x80, 0x01}},
    {134217727, 4, {0xfe, 0xff, 0xff, 0x7f}},
    {134217728, 5, {0x80, 0x80, 0x80, 0x80, 0x01}},
    {INT32_MAX, 5, {0xfe, 0xff, 0xff, 0xff, 0x0f}},
    {INT32_MIN, 5, {0xff, 0xff, 0xff, 0xff, 0x0f}},
};

static const sample samples64[] = {
    {(int64_t)INT32_MAX + 1, 5, {0x80, 0x80, 0x80, 0x80, 0x10}},
    {1700000000000, 6, {0x80, 0xa0, 0xab, 0xfe, 0xf9, 0x62}},
    {INT64_MAX, 10, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}},
    {INT64_MIN, 10, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}},
};

static void check_sample64(const sample *s) {
    uint8_t written[LS_VARINT64_BYTES_MAX];
    CHECK_INT(ls_varint64_write(written, s->value) - written, s->size);
    CHECK_BYTES(written, s->bytes, s->size);
    CHECK_INT(ls_varint64_size_bytes(s->value), s->size);
    const uint8_t *at = s->bytes;
    int64_t value = 0;
    CHECK_INT(ls_varint64_read(&at, s->bytes + s->size, &value), LS_OK);
    CHECK_INT(value, s->value);
    CHECK_INT(at - s->bytes, s->size);
}

static void check_sample32(const sample *s) {
    uint8_t written[LS_VARINT32_BYTES_MAX];
    CHECK_INT(ls_varint32_write(written, (int32_t)s->value) - written, s->size);
    CHECK_BYTES(written, s->bytes, s->size);
    CHECK_INT(ls_varint32_size_bytes((int32_t)s->value), s->size);
    const uint8_t *at = s->bytes;
    int32_t value = 0;
    CHECK_INT(ls_varint32_read(&at, s->bytes + s->size, &value), LS_OK);
    CHECK_INT(value, s->value);
    CHECK_INT(at - s->bytes, s->size);
}

static void test_samples(void) {
    for (size_t i = 0; i < sizeof samples32 / sizeof samples32[0]; i++) {
        check_sample32(&samples32[i]);
        check_sample64(&samples32[i]);
    }
    for (size_t i = 0; i < sizeof samples64 / sizeof samples64[0]; i++) check_sample64(&samples64[i]);
}

/* Around every power of two, both signs: what is written is read back, in the size foretold. */
static void test_round_trips(void) {
    for (int bit = 0; bit < 63; bit++) {
        for (int64_t delta = -2; delta <= 2; delta++) {
            for (int sign = -1; sign <= 1; sign += 2) {
                int64_t value = sign * ((INT64_C(1) << bit) + delta);
                uint8_t bytes[LS_VARINT64_BYTES_MAX];
                const uint8_t *end = ls_varint64_write(bytes, value);
                CHECK_INT(end - bytes, ls_varint64_size_bytes(value));
                const uint8_t *at = bytes;
                int64_t value64 = 0;
                CHECK_INT(ls_varint64_read(&at, end, &value64), LS_OK);
                CHECK_INT(value64, value);
                CHECK(at == end);
                if (value < INT32_MIN || value > INT32_MAX) continue;
                end = ls_varint32_write(bytes, (int32_t)value);
                CHECK_INT(end - bytes, ls_varint32_size_bytes((int32_t)value));
                at = bytes;
                int32_t value32 = 0;
                CHECK_INT(ls_varint32_read(&at, end, &value32), LS_OK);
                CHECK_INT(value32, value);
            }
        }
    }
}

/* Cut anywhere inside, with nothing behind the cut that could be read. */
static void test_torn(void) {
    for (size_t size = 0; size < LS_VARINT64_BYTES_MAX; size++) {
        uint8_t *bytes = (uint8_t *)malloc(size + 1);
        REQUIRE(bytes != NULL);
        memset(bytes, 0x80, size + 1);
        const uint8_t *start = bytes + 1;
        const uint8_t *at = start;
        int64_t value64 = 42;
        CHECK_INT(ls_varint64_read(&at, start + size, &value64), LS_TORN);
        CHECK_INT(value64, 42);
        CHECK(at == start);
        int32_t value32 = 42;
        CHECK_INT(ls_varint32_read(&at, start + size, &value32),
                  size < LS_VARINT32_BYTES_MAX ? LS_TORN : LS_CORRUPT);
        CHECK_INT(value32, 42);
        CHECK(at == start);
        free(bytes);
    }
}

static void test_unterminated(void) {
    uint8_t bytes[LS_VARINT64_BYTES_MAX + 1];
    memset(bytes, 0xff, sizeof bytes);
    bytes[LS_VARINT64_BYTES_MAX] = 0;
    const uint8_t *at = bytes;
    int64_t value64 = 42;
    CHECK_INT(ls_varint64_read(&at, bytes + sizeof bytes, &value64), LS_CORRUPT);
    CHECK_INT(value64, 42);
    CHECK(at == bytes);
    bytes[LS_VARINT32_BYTES_MAX] = 0;
    int32_t value32 = 42;
    CHECK_INT(ls_varint32_read(&at, bytes + sizeof bytes, &value32), LS_CORRUPT);
    CHECK_INT(value32, 42);
    CHECK(at == bytes);
}

/* As Kafka does: longer than needed is accepted, and bits that don't fit are dropped. */
static void test_lenient(void) {
    static const uint8_t nine_in_two[] = {0x92, 0x00};
    static const uint8_t zero_in_five[] = {0x80, 0x80, 0x80, 0x80, 0x00};
    static const uint8_t surplus32[] = {0xfe, 0xff, 0xff, 0xff, 0x7f};
    static const uint8_t surplus64[] = {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f};
    int32_t value32 = 0;
    int64_t value64 = 0;
    const uint8_t *at = nine_in_two;
    CHECK_INT(ls_varint32_read(&at, nine_in_two + 2, &value32), LS_OK);
    CHECK_INT(value32, 9);
    CHECK(at == nine_in_two + 2);
    at = nine_in_two;
    CHECK_INT(ls_varint64_read(&at, nine_in_two + 2, &value64), LS_OK);
    CHECK_INT(value64, 9);
    at = zero_in_five;
    CHECK_INT(ls_varint32_read(&at, zero_in_five + 5, &value32), LS_OK);
    CHECK_INT(value32, 0);
    at = surplus32;
    CHECK_INT(ls_varint32_read(&at, surplus32 + 5, &value32), LS_OK);
    CHECK_INT(value32, INT32_MAX);
    at = surplus64;
    CHECK_INT(ls_varint64_read(&at, surplus64 + 10, &value64), LS_OK);
    CHECK_INT(value64, INT64_MAX);
}

int main(void) {
    RUN(test_samples);
    RUN(test_round_trips);
    RUN(test_torn);
    RUN(test_unterminated);
    RUN(test_lenient);
    return check_result();
}
