/*
 * A library that is preloaded into a process under test. It makes chosen system calls on files
 * below one folder fail, and records all changes of these files.
 *
 * KEYWARD_FAULT_DIR      the folder, as an absolute path without links
 * KEYWARD_FAULT_CALL     the kind of call that fails: open, read, pread, write, fsync, rename,
 *                        truncate, copy, unlink or mkdir
 * KEYWARD_FAULT_AT       the number of the call that fails, from 1
 * KEYWARD_FAULT_ERRNO    the error
 * KEYWARD_FAULT_STICKY   1: all later calls of this kind fail too
 * KEYWARD_FAULT_ARM      calls are counted once this file exists (if it is set)
 * KEYWARD_FAULT_FIRED    a file that is created when the first call fails
 * KEYWARD_FAULT_COUNTS   a file that gets the number of calls of each kind at the end
 * KEYWARD_FAULT_TRACE    a file that gets all changes: see trace.rs
 * KEYWARD_FAULT_ACKS     a file whose lines are recorded in the trace too
 *
 * All calls go to the kernel directly, so that the library never calls itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum kind { OPEN, READ, PREAD, WRITE, FSYNC, RENAME, TRUNCATE, COPY, UNLINK, MKDIR, KINDS };
static const char *const names[KINDS] = {"open",     "read", "pread",  "write", "fsync", "rename",
                                         "truncate", "copy", "unlink", "mkdir"};

/* Held during each call, so that the trace has the order of the calls. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static const char *arm, *fired, *counts, *acks;
static int is_armed, fault_kind = -1, fault_errno, is_sticky, trace = -1;
static long fault_at, calls[KINDS];

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

__attribute__((constructor)) static void start(void) {
    const char *dir = setting("KEYWARD_FAULT_DIR"), *call = setting("KEYWARD_FAULT_CALL");
    const char *number = setting("KEYWARD_FAULT_AT"), *error = setting("KEYWARD_FAULT_ERRNO");
    const char *file = setting("KEYWARD_FAULT_TRACE");
    if (!dir || strlen(dir) >= sizeof root) return;
    strcpy(root, dir);
    root_length = strlen(root);
    arm = setting("KEYWARD_FAULT_ARM");
    is_armed = !arm;
    fired = setting("KEYWARD_FAULT_FIRED");
    counts = setting("KEYWARD_FAULT_COUNTS");
    acks = setting("KEYWARD_FAULT_ACKS");
    for (int kind = 0; call && kind < KINDS; kind++)
        if (!strcmp(names[kind], call)) fault_kind = kind;
    fault_at = number ? atol(number) : 0;
    fault_errno = error ? atoi(error) : EIO;
    is_sticky = setting("KEYWARD_FAULT_STICKY") != NULL;
    if (file) trace = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

__attribute__((destructor)) static void end(void) {
    if (!counts) return;
    int file = syscall(SYS_openat, AT_FDCWD, counts, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (int kind = 0; kind < KINDS; kind++) {
        char line[64];
        int length = snprintf(line, sizeof line, "%s %ld\n", names[kind], calls[kind]);
        syscall(SYS_write, file, line, length);
    }
    syscall(SYS_close, file);
}

static int is_below(const char *path) {
    return root_length && !strncmp(path, root, root_length) &&
           (path[root_length] == 0 || path[root_length] == '/');
}

static void path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

/* The absolute path of a name in a folder. */
static void path_at(int fd, const char *name, char *path) {
    size_t length = 0;
    path[0] = 0;
    if (name[0] != '/') {
        if (fd == AT_FDCWD) {
            if (syscall(SYS_getcwd, path, PATH_MAX) < 0) path[0] = 0;
        } else {
            path_of(fd, path);
        }
        length = strlen(path);
        if (length + 1 < PATH_MAX) path[length++] = '/';
    }
    snprintf(path + length, PATH_MAX - length, "%s", name);
}

/* Whether this call has to fail. Holds for a path below the folder only. */
static int fails(int kind, const char *path) {
    if (!is_below(path)) return 0;
    if (!is_armed) is_armed = syscall(SYS_faccessat, AT_FDCWD, arm, F_OK) == 0;
    if (!is_armed) return 0;
    long call = ++calls[kind];
    if (kind != fault_kind || !fault_at || call < fault_at || (call > fault_at && !is_sticky)) return 0;
    if (fired) {
        int file = syscall(SYS_openat, AT_FDCWD, fired, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file >= 0) syscall(SYS_close, file);
    }
    return 1;
}

static void record(const void *data, size_t length) {
    const char *from = data;
    while (trace >= 0 && length > 0) {
        ssize_t written = syscall(SYS_write, trace, from, length);
        if (written <= 0) return;
        from += written;
        length -= written;
    }
}

__attribute__((format(printf, 1, 2))) static void record_line(const char *format, ...) {
    char line[2 * PATH_MAX + 128];
    va_list arguments;
    if (trace < 0) return;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    record(line, length);
}

static unsigned long inode(int fd) {
    struct stat found;
    memset(&found, 0, sizeof found);
    return fstat(fd, &found) ? 0 : (unsigned long)found.st_ino;
}

static int is_folder(int fd) {
    struct stat found;
    return !fstat(fd, &found) && S_ISDIR(found.st_mode);
}

static int fail(void) {
    pthread_mutex_unlock(&lock);
    errno = fault_errno;
    return -1;
}

static long done(long result, int error) {
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

static int open_file(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_openat, folder, name, flags, mode);
    path_at(folder, name, path);
    pthread_mutex_lock(&lock);
    if (fails(OPEN, path)) return fail();
    int is_new = (flags & O_CREAT) && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
    int fd = syscall(SYS_openat, folder, name, flags, mode), error = errno;
    if (fd >= 0 && is_below(path)) {
        if (is_new) record_line("create %lu %s\n", inode(fd), path);
        else if (flags & O_TRUNC) record_line("truncate %lu 0\n", inode(fd));
    }
    return done(fd, error);
}

#define OPEN_MODE(flags, last)                                                                     \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list arguments;                                                                         \
        va_start(arguments, last);                                                                 \
        mode = va_arg(arguments, mode_t);                                                          \
        va_end(arguments);                                                                         \
    }

int open(const char *name, int flags, ...) {
    OPEN_MODE(flags, flags)
    return open_file(AT_FDCWD, name, flags, mode);
}

int open64(const char *name, int flags, ...) {
    OPEN_MODE(flags, flags)
    return open_file(AT_FDCWD, name, flags, mode);
}

int openat(int folder, const char *name, int flags, ...) {
    OPEN_MODE(flags, flags)
    return open_file(folder, name, flags, mode);
}

int openat64(int folder, const char *name, int flags, ...) {
    OPEN_MODE(flags, flags)
    return open_file(folder, name, flags, mode);
}

ssize_t read(int fd, void *buffer, size_t length) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_read, fd, buffer, length);
    path_of(fd, path);
    if (!is_below(path)) return syscall(SYS_read, fd, buffer, length);
    pthread_mutex_lock(&lock);
    if (fails(READ, path)) return fail();
    ssize_t result = syscall(SYS_read, fd, buffer, length);
    return done(result, errno);
}

ssize_t pread64(int fd, void *buffer, size_t length, off_t offset) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_pread64, fd, buffer, length, offset);
    path_of(fd, path);
    pthread_mutex_lock(&lock);
    if (fails(PREAD, path)) return fail();
    ssize_t result = syscall(SYS_pread64, fd, buffer, length, offset);
    return done(result, errno);
}

ssize_t pread(int fd, void *buffer, size_t length, off_t offset) {
    return pread64(fd, buffer, length, offset);
}

static void record_write(int fd, const void *data, ssize_t length, off_t offset) {
    if (length <= 0 || trace < 0) return;
    record_line("write %lu %ld %zd\n", inode(fd), (long)offset, length);
    record(data, length);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_pwrite64, fd, data, length, offset);
    path_of(fd, path);
    pthread_mutex_lock(&lock);
    /* Half of the bytes are written, as on a disk that fails in the middle. */
    int is_failing = fails(WRITE, path);
    if (is_failing) length /= 2;
    ssize_t result = length || !is_failing ? syscall(SYS_pwrite64, fd, data, length, offset) : 0;
    int error = errno;
    if (is_below(path)) record_write(fd, data, result, offset);
    return is_failing ? fail() : done(result, error);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return pwrite64(fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_write, fd, data, length);
    path_of(fd, path);
    int is_ack = acks && !strcmp(path, acks);
    if (!is_ack && !is_below(path)) return syscall(SYS_write, fd, data, length);
    pthread_mutex_lock(&lock);
    int is_failing = !is_ack && fails(WRITE, path);
    if (is_failing) length /= 2;
    off_t offset = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    ssize_t result = length || !is_failing ? syscall(SYS_write, fd, data, length) : 0;
    int error = errno;
    if (is_ack) record_line("ack %.*s", (int)length, (const char *)data);
    else record_write(fd, data, result, offset);
    return is_failing ? fail() : done(result, error);
}

static int sync_file(int number, int fd) {
    char path[PATH_MAX];
    if (!root_length) return syscall(number, fd);
    path_of(fd, path);
    pthread_mutex_lock(&lock);
    if (fails(FSYNC, path)) return fail();
    int result = syscall(number, fd), error = errno;
    if (!result && is_below(path)) {
        if (is_folder(fd)) record_line("sync-folder %s\n", path);
        else record_line("sync %lu\n", inode(fd));
    }
    return done(result, error);
}

int fsync(int fd) { return sync_file(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_file(SYS_fdatasync, fd); }

/* Writes pages without their metadata and without a barrier, so it makes nothing durable. */
int sync_file_range(int fd, off_t offset, off_t length, unsigned flags) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_sync_file_range, fd, offset, length, flags);
    path_of(fd, path);
    pthread_mutex_lock(&lock);
    if (fails(FSYNC, path)) return fail();
    int result = syscall(SYS_sync_file_range, fd, offset, length, flags);
    return done(result, errno);
}

int sync_file_range64(int fd, off_t offset, off_t length, unsigned flags) {
    return sync_file_range(fd, offset, length, flags);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char old[PATH_MAX], new[PATH_MAX];
    if (!root_length) return syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    path_at(from_folder, from, old);
    path_at(to_folder, to, new);
    pthread_mutex_lock(&lock);
    if (fails(RENAME, is_below(new) ? new : old)) return fail();
    int result = syscall(SYS_renameat2, from_folder, from, to_folder, to, flags), error = errno;
    if (!result && is_below(new)) record_line("rename %s\t%s\n", old, new);
    return done(result, error);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return renameat2(from_folder, from, to_folder, to, 0);
}

int rename(const char *from, const char *to) {
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int ftruncate64(int fd, off_t length) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_ftruncate, fd, length);
    path_of(fd, path);
    pthread_mutex_lock(&lock);
    if (fails(TRUNCATE, path)) return fail();
    int result = syscall(SYS_ftruncate, fd, length), error = errno;
    if (!result && is_below(path)) record_line("truncate %lu %ld\n", inode(fd), (long)length);
    return done(result, error);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

ssize_t copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t length,
                        unsigned flags) {
    char path[PATH_MAX];
    if (!root_length)
        return syscall(SYS_copy_file_range, in, in_offset, out, out_offset, length, flags);
    path_of(out, path);
    pthread_mutex_lock(&lock);
    if (fails(COPY, path)) return fail();
    off_t from = in_offset ? *in_offset : syscall(SYS_lseek, in, 0, SEEK_CUR);
    off_t to = out_offset ? *out_offset : syscall(SYS_lseek, out, 0, SEEK_CUR);
    ssize_t result = syscall(SYS_copy_file_range, in, in_offset, out, out_offset, length, flags);
    int error = errno;
    if (result > 0 && trace >= 0 && is_below(path)) {
        char *data = malloc(result);
        ssize_t size = data ? syscall(SYS_pread64, in, data, result, from) : 0;
        record_write(out, data, size, to);
        free(data);
    }
    return done(result, error);
}

int unlinkat(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_unlinkat, folder, name, flags);
    path_at(folder, name, path);
    pthread_mutex_lock(&lock);
    if (fails(UNLINK, path)) return fail();
    int result = syscall(SYS_unlinkat, folder, name, flags), error = errno;
    if (!result && is_below(path)) record_line("unlink %s\n", path);
    return done(result, error);
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!root_length) return syscall(SYS_mkdirat, folder, name, mode);
    path_at(folder, name, path);
    pthread_mutex_lock(&lock);
    if (fails(MKDIR, path)) return fail();
    int result = syscall(SYS_mkdirat, folder, name, mode), error = errno;
    if (!result && is_below(path)) record_line("mkdir %s\n", path);
    return done(result, error);
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
