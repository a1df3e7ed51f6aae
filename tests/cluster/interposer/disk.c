/* Holds and fails what a process asks of its disk, from outside and at any moment.
 *
 * Preloaded into a node: while the file named by THRONG_DISK_HOLD exists, every sync waits; while
 * the file named by THRONG_DISK_FULL exists, every write of a file finds no space. A process that
 * is killed while it is held has synced nothing since.
 *
 * LMDB syncs data by fdatasync and writes its meta page through a descriptor opened with O_DSYNC,
 * so writes to such descriptors are held as well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int exists(const char *variable) {
    const char *path = getenv(variable);
    return path != NULL && access(path, F_OK) == 0;
}

static void hold(void) {
    while (exists("THRONG_DISK_HOLD")) usleep(2000);
}

static int is_file(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

static int full(int fd) {
    if (!exists("THRONG_DISK_FULL") || !is_file(fd)) return 0;
    errno = ENOSPC;
    return 1;
}

static void hold_if_synchronous(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_DSYNC)) hold();
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (real == NULL) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    hold();
    return real(fd);
}

int fsync(int fd) {
    REAL(int, fsync, int);
    hold();
    return real(fd);
}

int msync(void *start, size_t length, int flags) {
    REAL(int, msync, void *, size_t, int);
    hold();
    return real(start, length, flags);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (full(fd)) return -1;
    return real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    if (full(fd)) return -1;
    hold_if_synchronous(fd);
    return real(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    if (full(fd)) return -1;
    hold_if_synchronous(fd);
    return real(fd, bytes, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (full(fd)) return -1;
    return real(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
    if (full(fd)) return -1;
    hold_if_synchronous(fd);
    return real(fd, parts, count, offset);
}
