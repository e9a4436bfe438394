/* Loaded before the C library (LD_PRELOAD): kills the process at the n-th file operation below a directory, or has
 * that operation fail, or writes down all of them. For tests; Linux.
 *
 *   kill_at_call_arm(directory, calls, n, action, sticky)   from now on; n counts from 1; action: see below
 *   kill_at_call_disarm()                                   returns how many calls were counted
 *   kill_at_call_record(directory, path)                    writes every call below the directory to a file
 *   kill_at_call_note(text)                                 puts a line of one's own between them
 *
 * calls: letters of those that count: o open, c open that creates, w write, s fsync and fdatasync, t truncate, a fallocate,
 * r rename, u unlink and rmdir, m mkdir. action: -1 dies before the call, -2 dies half-way through a write, -3 a write
 * or read does only half, -4 takes a quarter of a second longer, else the errno to fail with. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, KILL = -1, KILL_HALF_WAY = -2, SHORT = -3, DELAY = -4, DELAY_MS = 250 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char armed_directory[PATH_BYTES];
static char armed_calls[16];
static long armed_at, counted;
static int armed_action, armed_sticky, is_armed;
static long syncs;
static char recorded_directory[PATH_BYTES];
static int record_descriptor = -1;

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (real == NULL) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static ssize_t real_write(int descriptor, const void *bytes, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    return real(descriptor, bytes, size);
}

static int is_below(const char *path, const char *directory) {
    size_t size = strlen(directory);
    return size > 0 && strncmp(path, directory, size) == 0 && (path[size] == '/' || path[size] == '\0');
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, PATH_BYTES - 1);
    path[size > 0 ? size : 0] = '\0';
    return size > 0;
}

static void path_at(int directory, const char *name, char *path) {
    if (name[0] == '/') {
        snprintf(path, PATH_BYTES, "%s", name);
        return;
    }
    char start[PATH_BYTES] = "";
    if (directory == AT_FDCWD) {
        if (getcwd(start, sizeof start) == NULL) start[0] = '\0';
    } else {
        path_of(directory, start);
    }
    size_t used = strlen(start);
    snprintf(path, PATH_BYTES, "%s", start);
    snprintf(path + used, PATH_BYTES - used, "/%s", name);
}

/* A line for the record: call, numbers, path relative to the directory, second path; then the bytes, if any. */
static void record(char call, long long position, long long size, const char *path, const char *other,
                   const void *bytes) {
    if (record_descriptor < 0 || !is_below(path, recorded_directory)) return;
    char line[2 * PATH_BYTES + 64];
    size_t skip = strlen(recorded_directory);
    int length = snprintf(line, sizeof line, "%c %lld %lld .%s .%s\n", call, position, size, path + skip,
                          other != NULL ? other + skip : "");
    pthread_mutex_lock(&mutex);
    if (real_write(record_descriptor, line, (size_t)length) != length ||
        (bytes != NULL && real_write(record_descriptor, bytes, (size_t)size) != size))
        abort();
    pthread_mutex_unlock(&mutex);
}

/* 0, or what is to happen to this call. */
static int action_for(char call, const char *path) {
    if (!is_armed || !is_below(path, armed_directory)) return 0;
    pthread_mutex_lock(&mutex);
    if (call == 's') syncs++;
    int action = 0;
    if (strchr(armed_calls, call) != NULL) {
        counted++;
        if (counted == armed_at || (armed_sticky && counted > armed_at)) action = armed_action;
    }
    pthread_mutex_unlock(&mutex);
    if (action == KILL) _exit(42);
    if (action == DELAY) {
        struct timespec delay = {.tv_sec = 0, .tv_nsec = DELAY_MS * 1000000L};
        nanosleep(&delay, NULL);
        return 0;
    }
    return action;
}

/* Fails with the action's errno, where it is one; what is left is for writes. */
#define FAIL_IF_ASKED(action)                                                                                          \
    if ((action) > 0) {                                                                                                \
        errno = (action);                                                                                              \
        return -1;                                                                                                     \
    }

static ssize_t half_or_whole(int action, size_t size) {
    return action == KILL_HALF_WAY || action == SHORT ? (ssize_t)(size / 2) : (ssize_t)size;
}

#define PWRITE(name)                                                                                                   \
    ssize_t name(int descriptor, const void *bytes, size_t size, off_t position) {                                     \
        REAL(ssize_t, name, int, const void *, size_t, off_t);                                                         \
        char path[PATH_BYTES];                                                                                         \
        path_of(descriptor, path);                                                                                     \
        int action = action_for('w', path);                                                                            \
        FAIL_IF_ASKED(action)                                                                                          \
        ssize_t part = half_or_whole(action, size);                                                                    \
        if (action == SHORT && part == 0) part = (ssize_t)size;                                                        \
        ssize_t done = real(descriptor, bytes, (size_t)part, position);                                                \
        if (action == KILL_HALF_WAY) _exit(42);                                                                        \
        if (done > 0) record('w', (long long)position, (long long)done, path, NULL, bytes);                            \
        return done;                                                                                                   \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PREAD(name)                                                                                                    \
    ssize_t name(int descriptor, void *bytes, size_t size, off_t position) {                                           \
        REAL(ssize_t, name, int, void *, size_t, off_t);                                                               \
        char path[PATH_BYTES];                                                                                         \
        path_of(descriptor, path);                                                                                     \
        int action = action_for('p', path);                                                                            \
        FAIL_IF_ASKED(action)                                                                                          \
        size_t part = action == SHORT && size > 1 ? size / 2 : size;                                                   \
        return real(descriptor, bytes, part, position);                                                                \
    }
PREAD(pread)
PREAD(pread64)

#define SYNC(name)                                                                                                     \
    int name(int descriptor) {                                                                                         \
        REAL(int, name, int);                                                                                          \
        char path[PATH_BYTES];                                                                                         \
        path_of(descriptor, path);                                                                                     \
        int action = action_for('s', path);                                                                            \
        FAIL_IF_ASKED(action)                                                                                          \
        int result = real(descriptor);                                                                                 \
        if (result == 0) record('s', 0, 0, path, NULL, NULL);                                                          \
        return result;                                                                                                 \
    }
SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name)                                                                                                 \
    int name(int descriptor, off_t size) {                                                                             \
        REAL(int, name, int, off_t);                                                                                   \
        char path[PATH_BYTES];                                                                                         \
        path_of(descriptor, path);                                                                                     \
        int action = action_for('t', path);                                                                            \
        FAIL_IF_ASKED(action)                                                                                          \
        int result = real(descriptor, size);                                                                           \
        if (result == 0) record('t', 0, (long long)size, path, NULL, NULL);                                            \
        return result;                                                                                                 \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define FALLOCATE(name)                                                                                                \
    int name(int descriptor, int mode, off_t position, off_t size) {                                                   \
        REAL(int, name, int, int, off_t, off_t);                                                                       \
        char path[PATH_BYTES];                                                                                         \
        path_of(descriptor, path);                                                                                     \
        int action = action_for('a', path);                                                                            \
        FAIL_IF_ASKED(action)                                                                                          \
        return real(descriptor, mode, position, size); /* the file's size stays as it is */                            \
    }
FALLOCATE(fallocate)
FALLOCATE(fallocate64)

static int open_with(int (*real)(int, const char *, int, ...), int directory, const char *name, int flags,
                     mode_t mode) {
    char path[PATH_BYTES];
    path_at(directory, name, path);
    struct stat about;
    int creates = (flags & O_CREAT) != 0 && stat(path, &about) != 0;
    int action = action_for(creates ? 'c' : 'o', path);
    FAIL_IF_ASKED(action)
    int descriptor = real(directory, name, flags, mode);
    if (descriptor >= 0 && creates) record('c', 0, 0, path, NULL, NULL);
    return descriptor;
}

#define MODE_ARGUMENT                                                                                                  \
    mode_t mode = 0;                                                                                                   \
    if (flags & O_CREAT) {                                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = (mode_t)va_arg(rest, int);                                                                              \
        va_end(rest);                                                                                                  \
    }
#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        REAL(int, openat, int, const char *, int, ...);                                                                \
        MODE_ARGUMENT                                                                                                  \
        return open_with(real, AT_FDCWD, path, flags, mode);                                                           \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                                                                                   \
    int name(int directory, const char *path, int flags, ...) {                                                        \
        REAL(int, name, int, const char *, int, ...);                                                                  \
        MODE_ARGUMENT                                                                                                  \
        return open_with(real, directory, path, flags, mode);                                                          \
    }
OPENAT(openat)
OPENAT(openat64)

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    char from_path[PATH_BYTES], to_path[PATH_BYTES];
    path_at(AT_FDCWD, from, from_path);
    path_at(AT_FDCWD, to, to_path);
    int action = action_for('r', from_path);
    FAIL_IF_ASKED(action)
    int result = real(from, to);
    if (result == 0) record('r', 0, 0, from_path, to_path, NULL);
    return result;
}

int unlinkat(int directory, const char *name, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    char path[PATH_BYTES];
    path_at(directory, name, path);
    int action = action_for('u', path);
    FAIL_IF_ASKED(action)
    int result = real(directory, name, flags);
    if (result == 0) record('u', 0, 0, path, NULL, NULL);
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdir(const char *name, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    char path[PATH_BYTES];
    path_at(AT_FDCWD, name, path);
    int action = action_for('m', path);
    FAIL_IF_ASKED(action)
    int result = real(name, mode);
    if (result == 0) record('m', 0, 0, path, NULL, NULL);
    return result;
}

/* ---- what tests call ----------------------------------------------------------------------------- */

void kill_at_call_arm(const char *directory, const char *calls, long n, int action, int sticky) {
    snprintf(armed_directory, sizeof armed_directory, "%s", directory);
    snprintf(armed_calls, sizeof armed_calls, "%s", calls);
    armed_at = n;
    armed_action = action;
    armed_sticky = sticky;
    counted = syncs = 0;
    is_armed = 1;
}

long kill_at_call_disarm(void) {
    is_armed = 0;
    return counted;
}

long kill_at_call_syncs(void) { return syncs; }

int kill_at_call_record(const char *directory, const char *path) {
    record_descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    snprintf(recorded_directory, sizeof recorded_directory, "%s", directory);
    return record_descriptor;
}

void kill_at_call_note(const char *text) {
    if (record_descriptor >= 0) record('n', 0, (long long)strlen(text), recorded_directory, NULL, text);
}
