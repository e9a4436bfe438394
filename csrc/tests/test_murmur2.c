#include "check.h"
#include "logstore/murmur2.h"

/* Known answers of Kafka's Java client, whose int is signed. */
static void test_known_answers(void) {
    static const struct {
        const char *key;
        int32_t hash;
    } known[] = {
        {"", 275646681},
        {"21", -973932308},
        {"foobar", -790332482},
        {"a-little-bit-long-string", -985981536},
        {"a-little-bit-longer-string", -1486304829},
        {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
        {"abc", 479470107},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t hash = ls_murmur2((const uint8_t *)known[i].key, strlen(known[i].key));
        CHECK_CASE(hash == (uint32_t)known[i].hash, "\"%s\" hashes to %#x, expected %#x", known[i].key,
                   (unsigned)hash, (unsigned)known[i].hash);
    }
}

/* A byte of 0x80 and more is no negative number on the way in, neither in a word nor in the tail.
 * Every length of the tail once; the answers are kafka-python's. */
static void test_bytes_are_unsigned(void) {
    static const uint8_t key[] = {0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9};
    static const uint32_t expected[] = {0x106e08d9u, 0xed6f615bu, 0x6660fe8bu, 0x3b85fe24u,
                                        0x7f530fafu, 0x1f3ca77fu, 0xae0da0efu, 0xf6176f45u};
    for (size_t size = 0; size <= sizeof key; size++) CHECK_HEX(ls_murmur2(key, size), expected[size]);
}

/* The sign bit is masked, not negated: "21" hashes to a negative int. */
static void test_partition_for_key(void) {
    const uint8_t *key = (const uint8_t *)"21";
    CHECK_INT(ls_partition_for_key(key, 2, 1), 0);
    CHECK_INT(ls_partition_for_key(key, 2, 1000), (-973932308 & 0x7fffffff) % 1000);
    CHECK_INT(ls_partition_for_key(key, 2, INT32_MAX), -973932308 & 0x7fffffff);
}

int main(void) {
    RUN(test_known_answers);
    RUN(test_bytes_are_unsigned);
    RUN(test_partition_for_key);
    return check_result();
}
