#include "scratch_folder.h"

#include <errno.h>
#include <sys/stat.h>

#include "logstore/file.h"

static void test_file_reads_back_what_was_written(void) {
    make_folder();
    ls_file *file = NULL;
    ls_fault fault;
    CHECK_INT(ls_file_open(path, LS_FILE_READ, &file, &fault), LS_IO);
    CHECK_INT(fault.os_errno, ENOENT);
    CHECK_TEXT(fault.reason, "open");
    CHECK_INT(ls_file_open(path, LS_FILE_WRITE, &file, &fault), LS_IO);
    CHECK_INT(ls_file_open(path, 7, &file, &fault), LS_INVALID_ARGUMENT);
    REQUIRE_INT(ls_file_open(path, LS_FILE_CREATE, &file, &fault), LS_OK);
    struct stat about;
    CHECK(stat(path, &about) == 0 && (about.st_mode & 0137) == 0);
    const ls_file_operations *operations = file->operations;
    uint8_t bytes[16];
    size_t got = 99;
    CHECK_INT(operations->write(file, 4, (const uint8_t *)"abcd", 4, &fault), LS_OK);
    CHECK_INT(operations->write(file, 0, (const uint8_t *)"0123", 4, &fault), LS_OK);
    CHECK_INT(operations->read(file, 2, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 6);
    CHECK_BYTES(bytes, "23abcd", 6);
    CHECK_INT(ls_file_read_once(file, 5, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 3);
    CHECK_BYTES(bytes, "bcd", 3);
    CHECK_INT(ls_file_read_once(file, 8, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 0);
    CHECK_INT(ls_file_read_once(file, -1, bytes, 1, &got, &fault), LS_IO);
    CHECK_INT(fault.os_errno, EINVAL);
    CHECK_INT(operations->truncate(file, 5, &fault), LS_OK);
    int64_t size = 0;
    CHECK_INT(operations->size(file, &size, &fault), LS_OK);
    CHECK_INT(size, 5);
    CHECK_INT(operations->sync(file, &fault), LS_OK);
    CHECK_INT(operations->read(file, -1, bytes, 1, &got, &fault), LS_IO);
    CHECK_INT(fault.os_errno, EINVAL);
    CHECK_TEXT(fault.reason, "read");
    CHECK(ls_file_descriptor(file) >= 0);
    operations->close(file);

    CHECK_INT(ls_file_open(path, LS_FILE_CREATE, &file, &fault), LS_IO);
    CHECK_INT(fault.os_errno, EEXIST);
    REQUIRE_INT(ls_file_open(path, LS_FILE_READ, &file, &fault), LS_OK);
    CHECK_INT(file->operations->write(file, 0, bytes, 1, &fault), LS_IO);
    CHECK_INT(fault.os_errno, EBADF);
    CHECK_TEXT(fault.reason, "write");
    file->operations->close(file);
    remove_folder();
}

static void test_file_is_nothing_but_a_regular_file(void) {
    make_folder();
    ls_file *file = NULL;
    ls_fault fault;
    CHECK_INT(ls_file_open(folder, LS_FILE_READ, &file, &fault), LS_IO);
    CHECK_TEXT(fault.reason, "not a regular file");
    REQUIRE(mkfifo(path, 0600) == 0);
    CHECK_INT(ls_file_open(path, LS_FILE_READ, &file, &fault), LS_IO); /* and does not wait for a writer */
    CHECK_TEXT(fault.reason, "not a regular file");
    unlink(path);
    REQUIRE(symlink("elsewhere", path) == 0);
    CHECK_INT(ls_file_open(path, LS_FILE_READ, &file, &fault), LS_IO);
    CHECK_TEXT(fault.reason, "open");
    CHECK_INT(ls_file_open(path, LS_FILE_CREATE, &file, &fault), LS_IO);
    remove_folder();
}

static void test_a_full_device_is_a_full_disk(void) {
    /* /dev/full is no regular file, so its answer comes through a descriptor put in the place of one. */
    if (access("/dev/full", W_OK) != 0) return; /* a system without one */
    make_folder();
    ls_file *file = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_file_open(path, LS_FILE_CREATE, &file, &fault), LS_OK);
    FILE *full = fopen("/dev/full", "w");
    REQUIRE(full != NULL && dup2(fileno(full), ls_file_descriptor(file)) >= 0);
    CHECK_INT(file->operations->write(file, 0, (const uint8_t *)"x", 1, &fault), LS_DISK_FULL);
    CHECK_INT(fault.os_errno, ENOSPC);
    fclose(full);
    file->operations->close(file);
    remove_folder();
}

static void write_file(const char *name, const char *text) {
    char full[700];
    snprintf(full, sizeof full, "%s/%s", folder, name);
    FILE *file = fopen(full, "w");
    REQUIRE(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void test_logs_are_looked_at_by_their_base_offsets(void) {
    static const int64_t bases[] = {0, 7, INT64_C(1) << 40, INT64_MAX};
    make_folder();
    write_file("00000000000000000000.log", "abc");
    write_file("00000001099511627776.log", "");
    write_file("00000000000000000007.index", "no log");
    write_file("7.log", "not a name of a segment");
    ls_file_facts facts[4];
    ls_fault fault;
    REQUIRE_INT(ls_file_look_at_logs(folder, bases, 4, facts, &fault), LS_OK);
    CHECK_INT(facts[0].size_bytes, 3);
    CHECK_INT(facts[1].size_bytes, -1);
    CHECK_INT(facts[2].size_bytes, 0);
    CHECK_INT(facts[3].size_bytes, -1);
    struct stat about;
    char full[700];
    snprintf(full, sizeof full, "%s/00000000000000000000.log", folder);
    REQUIRE(stat(full, &about) == 0);
    CHECK(facts[0].modified_ms / 1000 == (int64_t)about.st_mtime);
    CHECK_INT(ls_file_look_at_logs(folder, bases, 0, facts, &fault), LS_OK);

    char missing[700];
    snprintf(missing, sizeof missing, "%s/missing", folder);
    CHECK_INT(ls_file_look_at_logs(missing, bases, 4, facts, &fault), LS_IO);
    CHECK_INT(fault.os_errno, ENOENT);
    CHECK_TEXT(fault.reason, "open the directory");
    CHECK_INT(ls_file_look_at_logs(full, bases, 4, facts, &fault), LS_IO); /* no directory */
    CHECK_INT(fault.os_errno, ENOTDIR);

    /* A file that can't be looked at: a link to itself. */
    unlink(full);
    REQUIRE(symlink(full, full) == 0);
    CHECK_INT(ls_file_look_at_logs(folder, bases, 4, facts, &fault), LS_IO);
    CHECK_INT(fault.os_errno, ELOOP);
    CHECK_TEXT(fault.reason, "stat");
    CHECK_INT(fault.position, 0);

    static const char *const names[] = {"00000000000000000000.log", "00000001099511627776.log", "00000000000000000007.index",
                                        "7.log"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(full, sizeof full, "%s/%s", folder, names[i]);
        unlink(full);
    }
    remove_folder();
}

int main(void) {
    RUN(test_file_reads_back_what_was_written);
    RUN(test_file_is_nothing_but_a_regular_file);
    RUN(test_a_full_device_is_a_full_disk);
    RUN(test_logs_are_looked_at_by_their_base_offsets);
    return check_result();
}
