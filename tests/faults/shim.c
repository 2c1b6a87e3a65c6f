/* Preloaded into an apply and all of its processes: notes or disturbs what they change under one directory, and
   shifts the wall clock. Made for the tests of faults; told what to do by the environment (shim.py). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct shared { long long calls, fired; double clock; }; /* one for all processes of an apply */

static struct shared *shared;
static const char *under, *op, *name, *act, *group;
static long nth;
static int lasting, error_number, reads, log_file = -1;

#define REAL(result, function, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, function)

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULT_SHARED");
    int handle = file ? (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC) : -1;
    if (handle < 0) return;
    shared = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    syscall(SYS_close, handle);
    if (shared == MAP_FAILED) { shared = 0; return; }
    if (getenv("FAULT_LOG"))
        log_file = (int)syscall(SYS_openat, AT_FDCWD, getenv("FAULT_LOG"), O_WRONLY | O_APPEND | O_CLOEXEC);
    under = getenv("FAULT_UNDER"); op = getenv("FAULT_OP"); name = getenv("FAULT_NAME");
    act = getenv("FAULT_ACT"); group = getenv("FAULT_GROUP");
    nth = getenv("FAULT_NTH") ? atol(getenv("FAULT_NTH")) : 0;
    lasting = getenv("FAULT_LASTING") ? atoi(getenv("FAULT_LASTING")) : 0;
    error_number = act ? atoi(act) : 0;
    reads = getenv("FAULT_READS") != 0; /* note and disturb what is read, instead of what is changed */
}

static const char *inside(const char *path) {
    size_t length = under ? strlen(under) : 0;
    return length && !strncmp(path, under, length) && (path[length] == '/' || !path[length])
        ? path + length + (path[length] == '/') : 0;
}

static const char *path_of(int directory, const char *path, char *space) {
    if (path && path[0] == '/') return path;
    char link[64];
    if (directory == AT_FDCWD) { if (!getcwd(space, PATH_MAX)) return 0; }
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, space, PATH_MAX - 1);
        if (length < 0) return 0;
        space[length] = 0;
    }
    if (path) { size_t at = strlen(space); snprintf(space + at, PATH_MAX * 2 - at, "/%s", path); }
    return space;
}

static void end(void) {
    kill(group ? 0 : getpid(), SIGKILL);
    for (;;) pause();
}

/* Return 0 to go on, 1 to fail with errno set, 2 to end after the call, 3 to end in its middle. */
static int decide(const char *what, int directory, const char *path) {
    char space[PATH_MAX * 2];
    const char *whole, *here;
    int before = errno;
    if (!shared || !under || reads != (!strcmp(what, "read") || !strcmp(what, "look"))) return 0;
    if (!(whole = path_of(directory, path, space)) || !(here = inside(whole))) {
        errno = before;
        return 0;
    }
    errno = before;
    if (log_file >= 0) {
        char line[PATH_MAX + 32];
        int length = snprintf(line, sizeof line, "%s %s\n", what, here);
        syscall(SYS_write, log_file, line, (size_t)length);
    }
    if (!act) return 0;
    int changes = strcmp(what, "fsync") != 0, takes_room = !strcmp(what, "write") || !strcmp(what, "open") || !strcmp(what, "mkdir");
    int mine = !strcmp(op, what) && !fnmatch(name, here, FNM_PATHNAME);
    if (shared->fired && error_number) {
        int again = (lasting == 1 && mine) || (lasting == 2 && takes_room) || (lasting == 3 && changes);
        if (again) errno = error_number;
        return again;
    }
    if (!mine || __atomic_add_fetch(&shared->calls, 1, __ATOMIC_SEQ_CST) != nth) return 0;
    __atomic_store_n(&shared->fired, 1, __ATOMIC_SEQ_CST);
    if (error_number) { errno = error_number; return 1; }
    if (!strcmp(act, "before")) end();
    return !strcmp(act, "middle") ? 3 : 2;
}

#define DONE(call) do { long result_ = (call); if (told == 2) end(); return result_; } while (0)

static int opened(const char *function, int directory, const char *path, int flags, mode_t mode) {
    REAL(int, "openat64", int, const char *, int, ...);
    (void)function;
    int told = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) ? decide("open", directory, path)
        : flags & O_DIRECTORY ? 0 : decide("look", directory, path);
    if (told == 1) return -1;
    DONE(real(directory, path, flags, mode));
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE return opened("open", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened("open64", AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return opened("openat", at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return opened("openat64", at, path, flags, mode); }

ssize_t read(int file, void *bytes, size_t count) {
    REAL(ssize_t, "read", int, void *, size_t);
    if (decide("read", file, 0) == 1) return -1;
    return real(file, bytes, count);
}

ssize_t pread64(int file, void *bytes, size_t count, off64_t at) {
    REAL(ssize_t, "pread64", int, void *, size_t, off64_t);
    if (decide("read", file, 0) == 1) return -1;
    return real(file, bytes, count, at);
}
ssize_t pread(int file, void *bytes, size_t count, off_t at) { return pread64(file, bytes, count, at); }

ssize_t write(int file, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int told = decide("write", file, 0);
    if (told == 1) return -1;
    if (told == 3) { real(file, bytes, count / 2); end(); }
    DONE(real(file, bytes, count));
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    int told = decide("write", file, 0);
    if (told == 1) return -1;
    if (told == 3) { real(file, bytes, count / 2, at); end(); }
    DONE(real(file, bytes, count, at));
}
ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) { return pwrite64(file, bytes, count, at); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    int told = decide("write", file, 0);
    if (told == 1) return -1;
    DONE(real(file, parts, count));
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t count) {
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    int told = reads ? decide("read", in, 0) : decide("write", out, 0);
    if (told == 1) return -1;
    DONE(real(out, in, at, count));
}
ssize_t sendfile(int out, int in, off_t *at, size_t count) { return sendfile64(out, in, (off64_t *)at, count); }

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t count, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    int told = decide("write", out, 0);
    if (told == 1) return -1;
    DONE(real(in, from, out, to, count, flags));
}

#define ON_FILE(result, function, what, extra, given) \
    result function(int file extra) { \
        REAL(result, #function, int extra); \
        int told = decide(what, file, 0); \
        if (told == 1) return -1; \
        DONE(real(file given)); \
    }
#define COMMA ,
ON_FILE(int, fsync, "fsync", , )
ON_FILE(int, fdatasync, "fsync", , )
ON_FILE(int, ftruncate, "truncate", COMMA off_t length, COMMA length)
ON_FILE(int, ftruncate64, "truncate", COMMA off64_t length, COMMA length)

#define ON_PATH(function, what, at, declared, given) \
    int function declared { \
        REAL(int, #function, DECLARED_##function); \
        int told = decide(what, at, path); \
        if (told == 1) return -1; \
        DONE(real given); \
    }
#define DECLARED_unlink const char *
#define DECLARED_rmdir const char *
#define DECLARED_unlinkat int, const char *, int
#define DECLARED_mkdir const char *, mode_t
#define DECLARED_rename const char *, const char *
#define DECLARED_renameat int, const char *, int, const char *
ON_PATH(unlink, "unlink", AT_FDCWD, (const char *path), (path))
ON_PATH(rmdir, "unlink", AT_FDCWD, (const char *path), (path))
ON_PATH(unlinkat, "unlink", directory, (int directory, const char *path, int flags), (directory, path, flags))
ON_PATH(mkdir, "mkdir", AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(rename, "rename", AT_FDCWD, (const char *from, const char *path), (from, path))
ON_PATH(renameat, "rename", to, (int at, const char *from, int to, const char *path), (at, from, to, path))

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int result = real(which, now);
    if (!result && which == CLOCK_REALTIME && shared) now->tv_sec += (time_t)shared->clock;
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (where) *where = found.tv_sec;
    return found.tv_sec;
}
