#include "check.h"
#include "logstore/status.h"

static void test_every_status_has_a_name_of_its_own(void) {
    CHECK_TEXT(ls_status_name(LS_OK), "OK");
    CHECK_TEXT(ls_status_name(LS_CORRUPT), "CORRUPT");
    CHECK_TEXT(ls_status_name(LS_DISK_FULL), "DISK_FULL");
    for (int i = 0; i < (int)LS_STATUS_COUNT; i++) {
        CHECK_CASE(strcmp(ls_status_name((ls_status)i), "UNKNOWN") != 0, "status %d has no name", i);
        for (int j = 0; j < i; j++) {
            CHECK_CASE(strcmp(ls_status_name((ls_status)i), ls_status_name((ls_status)j)) != 0,
                       "statuses %d and %d share a name", i, j);
        }
    }
    CHECK_TEXT(ls_status_name(LS_STATUS_COUNT), "UNKNOWN");
}

static void test_fail_fills_every_field(void) {
    ls_fault fault;
    memset(&fault, 0x55, sizeof fault);
    CHECK_INT(ls_fail(&fault, LS_CORRUPT, "a rule", 7, -1, INT64_MAX), LS_CORRUPT);
    CHECK_INT(fault.status, LS_CORRUPT);
    CHECK_INT(fault.os_errno, 0);
    CHECK_TEXT(fault.reason, "a rule");
    CHECK_INT(fault.position, 7);
    CHECK_INT(fault.expected, -1);
    CHECK_INT(fault.actual, INT64_MAX);
}

int main(void) {
    RUN(test_every_status_has_a_name_of_its_own);
    RUN(test_fail_fills_every_field);
    return check_result();
}
