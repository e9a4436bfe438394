/* A folder on a real disk for one test at a time: `path` is a file in it. Include it first. */
#ifndef LOGSTORE_TESTS_SCRATCH_FOLDER_H
#define LOGSTORE_TESTS_SCRATCH_FOLDER_H

#if !defined(__APPLE__)
#define _XOPEN_SOURCE 700 /* mkdtemp */
#endif

#include <stdio.h>
#include <unistd.h>

#include "check.h"

static char folder[512];
static char path[600];

static inline void make_folder(void) {
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/logstore-XXXXXX", parent != NULL ? parent : P_tmpdir);
    REQUIRE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/file", folder);
}

static inline void remove_folder(void) {
    unlink(path);
    CHECK(rmdir(folder) == 0);
}

#endif
