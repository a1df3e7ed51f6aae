/* Records what a process asks of the files below one folder, in the order in which it asks.
 *
 * Preloaded into a process: every change of a file or of a folder entry below THRONG_CAPTURE_ROOT and
 * every sync is carried out and appended to the file THRONG_CAPTURE_RECORD, both under one lock, so
 * that the record has the order of the changes. The process may append marks of its own to the same
 * file (kind MARK); each append is one system call and so lands whole.
 *
 * A record is, in little-endian order: kind u8, flags u8, zero u16, length of names u32, inode u64,
 * offset u64, length of data u64, then names (separated by a zero byte), then data.
 *
 * It refuses to judge: what may be missing after a power cut is decided by whoever reads the record.
 * Stores through a memory map are not seen; the reader compares the end of the record with the files.
 */
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
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE = 2, TRUNCATE = 3, SYNC = 4, RENAME = 5, UNLINK = 6, MKDIR = 7, UNSUPPORTED = 9 };
enum { SYNCHRONOUS = 1 };

/* Descriptors above this are not looked at; a recorded process opens a few dozen. */
#define DESCRIPTORS_MAX 4096
/* Parts of one gathered write; LMDB uses 64. */
#define PARTS_MAX 1024

struct head {
    uint8_t kind, flags;
    uint16_t zero;
    uint32_t names;
    uint64_t inode, offset, data;
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int record = -1;
/* The inode behind a descriptor of a file below the root; 0 for all others. */
static uint64_t inode_of[DESCRIPTORS_MAX];

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (real == NULL) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static void give_up(const char *why) {
    fprintf(stderr, "capture: %s: %s\n", why, strerror(errno));
    abort();
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("THRONG_CAPTURE_ROOT");
    const char *file = getenv("THRONG_CAPTURE_RECORD");
    if (folder == NULL || file == NULL) return;
    int (*real_open)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    record = real_open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (record < 0) give_up(file);
    root_length = strlen(folder);
    if (root_length >= sizeof root) give_up("the root is too long");
    memcpy(root, folder, root_length + 1);
}

static void append(uint8_t kind, uint8_t flags, uint64_t inode, uint64_t offset, const char *names,
                   size_t names_length, const struct iovec *data, int parts, size_t bytes) {
    static ssize_t (*real_writev)(int, const struct iovec *, int);
    if (real_writev == NULL)
        real_writev = (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    struct head head = {kind, flags, 0, (uint32_t)names_length, inode, offset, bytes};
    struct iovec all[PARTS_MAX + 2];
    int count = 0;
    all[count++] = (struct iovec){&head, sizeof head};
    if (names_length > 0) all[count++] = (struct iovec){(void *)names, names_length};
    size_t left = bytes;
    for (int i = 0; i < parts && left > 0; i++) {
        size_t take = data[i].iov_len < left ? data[i].iov_len : left;
        all[count++] = (struct iovec){data[i].iov_base, take};
        left -= take;
    }
    ssize_t whole = (ssize_t)(sizeof head + names_length + bytes);
    if (real_writev(record, all, count) != whole) give_up("the record cannot be written");
}

/* Whether a path is below the root, by its text: recorded processes use absolute paths. */
static int below(const char *path) {
    return record >= 0 && strncmp(path, root, root_length) == 0 &&
           (path[root_length] == '/' || path[root_length] == 0);
}

/* The absolute path of a path relative to a folder's descriptor. */
static const char *absolute(int folder, const char *path, char *buffer) {
    if (path[0] == '/' || folder == AT_FDCWD) return path;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) return path;
    snprintf(buffer + length, (size_t)(PATH_MAX - length), "/%s", path);
    return buffer;
}

static uint64_t tracked(int fd) {
    return record >= 0 && fd >= 0 && fd < DESCRIPTORS_MAX ? inode_of[fd] : 0;
}

static int synchronous(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_DSYNC) ? SYNCHRONOUS : 0;
}

/* Called under the lock, with the descriptor just opened. */
static void opened(const char *path, int flags, int existed, int fd) {
    struct stat status;
    if (fd < 0 || !below(path) || fstat(fd, &status) != 0) return;
    if (fd >= DESCRIPTORS_MAX) give_up("too many descriptors");
    inode_of[fd] = status.st_ino;
    if (S_ISREG(status.st_mode) && (flags & O_CREAT) && !existed)
        append(CREATE, 0, status.st_ino, 0, path, strlen(path), NULL, 0, 0);
    else if (S_ISREG(status.st_mode) && (flags & O_TRUNC))
        append(TRUNCATE, 0, status.st_ino, 0, NULL, 0, NULL, 0, 0);
}

static int open_with(const char *symbol, int folder, const char *path, int flags, mode_t mode) {
    int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, symbol);
    char buffer[PATH_MAX];
    const char *full = absolute(folder, path, buffer);
    if (!below(full)) return real(folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    int existed = access(full, F_OK) == 0;
    int fd = real(folder, path, flags, mode);
    int error = errno;
    opened(full, flags, existed, fd);
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode = va_arg(arguments, mode_t); \
        va_end(arguments); \
    }

int open(const char *path, int flags, ...) {
    MODE(flags);
    return open_with("openat", AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags);
    return open_with("openat64", AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE(flags);
    return open_with("openat", folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags);
    return open_with("openat64", folder, path, flags, mode);
}

int close(int fd) {
    REAL(int, close, int);
    if (!tracked(fd)) return real(fd);
    pthread_mutex_lock(&lock);
    inode_of[fd] = 0;
    int result = real(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

/* Records a write that has just been done at an offset. Called under the lock. */
static void written(int fd, const struct iovec *parts, int count, off64_t offset, ssize_t bytes) {
    if (count > PARTS_MAX) give_up("too many parts of a write");
    if (bytes > 0)
        append(WRITE, (uint8_t)synchronous(fd), inode_of[fd], (uint64_t)offset, NULL, 0, parts, count, (size_t)bytes);
}

#define RECORDED_WRITE(call, parts, count, at) \
    if (!tracked(fd)) return call; \
    pthread_mutex_lock(&lock); \
    off64_t place = (at); \
    ssize_t result = call; \
    int error = errno; \
    written(fd, parts, count, place, result); \
    pthread_mutex_unlock(&lock); \
    errno = error; \
    return result

/* Where a write without an offset lands. */
static off64_t here(int fd) {
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_APPEND) && fstat(fd, &status) == 0) return status.st_size;
    return lseek64(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    struct iovec part = {(void *)bytes, count};
    RECORDED_WRITE(real(fd, bytes, count), &part, 1, here(fd));
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    struct iovec part = {(void *)bytes, count};
    RECORDED_WRITE(real(fd, bytes, count, offset), &part, 1, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    struct iovec part = {(void *)bytes, count};
    RECORDED_WRITE(real(fd, bytes, count, offset), &part, 1, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    RECORDED_WRITE(real(fd, parts, count), parts, count, here(fd));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
    RECORDED_WRITE(real(fd, parts, count, offset), parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t);
    RECORDED_WRITE(real(fd, parts, count, offset), parts, count, offset);
}

/* Carries out a call on a descriptor and records it if it succeeded. */
#define RECORDED(call, kind, offset) \
    if (!tracked(fd)) return call; \
    pthread_mutex_lock(&lock); \
    int result = call; \
    int error = errno; \
    if (result == 0) append(kind, 0, inode_of[fd], (uint64_t)(offset), NULL, 0, NULL, 0, 0); \
    pthread_mutex_unlock(&lock); \
    errno = error; \
    return result

int ftruncate(int fd, off_t length) {
    REAL(int, ftruncate, int, off_t);
    RECORDED(real(fd, length), TRUNCATE, length);
}

int ftruncate64(int fd, off64_t length) {
    REAL(int, ftruncate64, int, off64_t);
    RECORDED(real(fd, length), TRUNCATE, length);
}

int fsync(int fd) {
    REAL(int, fsync, int);
    RECORDED(real(fd), SYNC, 0);
}

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    RECORDED(real(fd), SYNC, 0);
}

int msync(void *start, size_t length, int flags) {
    REAL(int, msync, void *, size_t, int);
    /* Nothing recorded here stores through a map; if that changes, the reader must know. */
    pthread_mutex_lock(&lock);
    if (record >= 0) append(UNSUPPORTED, 0, 0, 0, "msync", 5, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    return real(start, length, flags);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    if (!below(path)) return real(path, mode);
    pthread_mutex_lock(&lock);
    int result = real(path, mode);
    int error = errno;
    struct stat status;
    if (result == 0 && stat(path, &status) == 0)
        append(MKDIR, 0, status.st_ino, 0, path, strlen(path), NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

static int removed(int result, const char *path) {
    int error = errno;
    if (result == 0) append(UNLINK, 0, 0, 0, path, strlen(path), NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    if (!below(path)) return real(path);
    pthread_mutex_lock(&lock);
    return removed(real(path), path);
}

int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    if (!below(path)) return real(path);
    pthread_mutex_lock(&lock);
    return removed(real(path), path);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    char buffer[PATH_MAX];
    const char *full = absolute(folder, path, buffer);
    if (!below(full)) return real(folder, path, flags);
    pthread_mutex_lock(&lock);
    return removed(real(folder, path, flags), full);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    if (!below(from) && !below(to)) return real(from, to);
    pthread_mutex_lock(&lock);
    int result = real(from, to);
    int error = errno;
    if (result == 0) {
        char names[2 * PATH_MAX];
        int length = snprintf(names, sizeof names, "%s%c%s", from, 0, to);
        append(RENAME, 0, 0, 0, names, (size_t)length, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
