/* Preloaded into a process: the n-th call that changes a file fails, or kills the process.

   Calls are counted once `faults_arm` has been called. What opens a file to be read is no such
   call, nor is what writes to a standard stream. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, FAIL, KILL };

static atomic_long calls;
static long wanted;
static int mode, code;

void faults_arm(long n, int how, int error) {
    atomic_store(&calls, 0);
    wanted = n, mode = how, code = error;
}

long faults_seen(void) { return atomic_load(&calls); }

/* Whether this call is the one, and is to fail. */
static int chosen(void) {
    if (mode == OFF || atomic_fetch_add(&calls, 1) + 1 != wanted) return 0;
    if (mode == FAIL) { errno = code; return 1; }
    return 2; /* to be killed once it is done */
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define AROUND(name, ...)                                   \
    int here = chosen();                                    \
    if (here == 1) return -1;                               \
    __typeof__(name(__VA_ARGS__)) done = REAL(name)(__VA_ARGS__); \
    if (here == 2) kill(getpid(), SIGKILL);                 \
    return done;

ssize_t write(int fd, const void *data, size_t n) {
    if (fd < 3) return REAL(write)(fd, data, n);
    AROUND(write, fd, data, n)
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { AROUND(pwrite, fd, data, n, at) }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { AROUND(pwrite64, fd, data, n, at) }
int ftruncate(int fd, off_t n) { AROUND(ftruncate, fd, n) }
int ftruncate64(int fd, off64_t n) { AROUND(ftruncate64, fd, n) }
int fsync(int fd) { AROUND(fsync, fd) }
int fdatasync(int fd) { AROUND(fdatasync, fd) }
int fchmod(int fd, mode_t m) { AROUND(fchmod, fd, m) }
int mkdir(const char *p, mode_t m) { AROUND(mkdir, p, m) }
int rmdir(const char *p) { AROUND(rmdir, p) }
int unlink(const char *p) { AROUND(unlink, p) }
int unlinkat(int d, const char *p, int f) { AROUND(unlinkat, d, p, f) }
int rename(const char *a, const char *b) { AROUND(rename, a, b) }
int renameat(int c, const char *a, int d, const char *b) { AROUND(renameat, c, a, d, b) }
int renameat2(int c, const char *a, int d, const char *b, unsigned f) {
    if (getenv("NO_EXCHANGE")) { errno = ENOSYS; return -1; }
    AROUND(renameat2, c, a, d, b, f)
}
int link(const char *a, const char *b) { AROUND(link, a, b) }
int linkat(int c, const char *a, int d, const char *b, int f) { AROUND(linkat, c, a, d, b, f) }

#define OPENING(name, ...)                                           \
    int m = 0, here = 0;                                             \
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {                            \
        va_list more; va_start(more, flags); m = va_arg(more, int); va_end(more); \
    }                                                                \
    if (flags & (O_CREAT | O_TRUNC)) here = chosen();                \
    if (here == 1) return -1;                                        \
    int done = REAL(name)(__VA_ARGS__, m);                           \
    if (here == 2) kill(getpid(), SIGKILL);                          \
    return done;

int open(const char *p, int flags, ...) { OPENING(open, p, flags) }
int open64(const char *p, int flags, ...) { OPENING(open64, p, flags) }
int openat(int d, const char *p, int flags, ...) { OPENING(openat, d, p, flags) }
int openat64(int d, const char *p, int flags, ...) { OPENING(openat64, d, p, flags) }
