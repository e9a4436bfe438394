/* File identities: what keeps one, and what has another. */
#include "scratch_folder.h"

#include <errno.h>

#include "logstore/file_identity.h"

static bool is_same(const ls_file_identity *a, const ls_file_identity *b) {
    return a->mount_id == b->mount_id && a->device == b->device && a->inode == b->inode &&
           a->birth_ns == b->birth_ns;
}

static void write_file(const char *name) {
    FILE *file = fopen(name, "a");
    REQUIRE(file != NULL && fputs("x", file) >= 0 && fclose(file) == 0);
}

static void test_a_file_keeps_its_identity(void) {
    make_folder();
    write_file(path);
    ls_file_identity first;
    ls_file_identity now;
    ls_fault fault;
    ls_status status = ls_file_identify(path, &first, &fault);
    CHECK(status == LS_OK || status == LS_UNSUPPORTED);
    if (status == LS_OK) {
        write_file(path);
        REQUIRE_INT(ls_file_identify(path, &now, &fault), LS_OK);
        CHECK(is_same(&first, &now));
        CHECK(now.inode != 0 && now.birth_ns > 0);
        char other[640];
        snprintf(other, sizeof other, "%s.copy", path);
        write_file(other);
        REQUIRE(rename(other, path) == 0);
        REQUIRE_INT(ls_file_identify(path, &now, &fault), LS_OK);
        CHECK(!is_same(&first, &now));
        REQUIRE_INT(ls_file_identify(folder, &now, &fault), LS_OK);
        CHECK(!is_same(&first, &now));
        CHECK(now.mount_id == first.mount_id && now.device == first.device);
    }
    remove_folder();
}

static void test_what_can_not_be_identified(void) {
    ls_file_identity found = {.inode = 7};
    ls_fault fault;
    ls_status status = ls_file_identify("/no/such/file", &found, &fault);
    CHECK(status == LS_IO || status == LS_UNSUPPORTED);
    if (status == LS_IO) CHECK_INT(fault.os_errno, ENOENT);
    /* Made by the kernel as it is read: no page cache, no birth. */
    CHECK(ls_file_identify("/proc/self/status", &found, &fault) != LS_OK);
    CHECK_INT((long long)found.inode, 7);
}

int main(void) {
    RUN(test_a_file_keeps_its_identity);
    RUN(test_what_can_not_be_identified);
    return check_result();
}
