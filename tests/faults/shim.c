/* Preloaded into a process, lets system calls on the files below one directory fail, or writes them down.

   Armed for faults, the n-th of the chosen calls fails, or writes less than it was given, and what follows may fail too;
   or the process dies there, before the call or in the middle of a write.
   Armed for a trace, every call that changes a file or a directory, or makes one durable, is appended to a file with what
   it wrote, in the order in which the kernel saw them. Files of which SQLite makes an index in memory are left out. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN, READ, WRITE, TRUNCATE, FSYNC, SYNCFS, RENAME, LINK, UNLINK, MKDIR, RMDIR, MARK };
enum { COUNT, ONCE, ALWAYS, SHORT, HALF, KILL, TORN };
#define FILES 4096
#define NAME 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[NAME];
static char names[FILES][NAME];
static int armed, mode, failure, trace = -1;
static unsigned calls;
static long when, total, seen[MARK];
static char struck[NAME + 32];

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open64, const char *, int, ...);
REAL(int, openat64, int, const char *, int, ...);
REAL(int, close, int);
REAL(ssize_t, read, int, void *, size_t);
REAL(ssize_t, pread64, int, void *, size_t, off_t);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite64, int, const void *, size_t, off_t);
REAL(int, ftruncate64, int, off_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, syncfs, int);
REAL(int, renameat, int, const char *, int, const char *);
REAL(int, linkat, int, const char *, int, const char *, int);
REAL(int, unlinkat, int, const char *, int);
REAL(int, mkdirat, int, const char *, mode_t);
REAL(ssize_t, sendfile64, int, int, off_t *, size_t);
REAL(ssize_t, copy_file_range, int, off_t *, int, off_t *, size_t, unsigned);

#define FIND(name) real_##name = (__typeof__(real_##name))dlsym(RTLD_NEXT, #name)
__attribute__((constructor)) static void find(void) {
    FIND(open64), FIND(openat64), FIND(close), FIND(read), FIND(pread64), FIND(write), FIND(pwrite64);
    FIND(ftruncate64), FIND(fsync), FIND(fdatasync), FIND(syncfs), FIND(renameat), FIND(linkat), FIND(unlinkat);
    FIND(mkdirat), FIND(sendfile64), FIND(copy_file_range);
}

/* Faults: `chosen` is a set of calls, `nth` counts from 1. */
void faults_inject(const char *below, unsigned chosen, long nth, int number, int how) {
    snprintf(root, sizeof root, "%s", below);
    memset(seen, 0, sizeof seen);
    total = 0;
    calls = chosen, when = nth, failure = number, mode = how, struck[0] = 0, armed = 1;
}

void faults_trace(const char *below, const char *file) {
    snprintf(root, sizeof root, "%s", below);
    trace = real_open64(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    armed = 2;
}

void faults_stop(void) { armed = 0; }
long faults_seen(int call) { return seen[call]; }
const char *faults_struck(void) { return struck; }

struct record { uint64_t inode, other, offset; uint32_t call, size, name, name2; };

static void note(uint32_t call, uint64_t inode, uint64_t other, uint64_t offset, const void *data, size_t size,
                 const char *name, const char *name2) {
    struct record head = {inode, other, offset, call, size, name ? strlen(name) : 0, name2 ? strlen(name2) : 0};
    real_write(trace, &head, sizeof head);
    if (head.name) real_write(trace, name, head.name);
    if (head.name2) real_write(trace, name2, head.name2);
    if (size) real_write(trace, data, size);
}

void faults_mark(const char *text) {
    if (armed != 2) return;
    pthread_mutex_lock(&lock);
    note(MARK, 0, 0, 0, 0, 0, text, 0);
    pthread_mutex_unlock(&lock);
}

static int ours(const char *path) {
    size_t length = strlen(root), size = strlen(path);
    if (!armed || strncmp(path, root, length) || (path[length] && path[length] != '/')) return 0;
    return size < 4 || strcmp(path + size - 4, "-shm");
}

static const char *whole(int directory, const char *path, char *into) {
    if (path[0] == '/') snprintf(into, NAME, "%s", path);
    else if (directory >= 0 && directory < FILES) snprintf(into, NAME, "%s/%s", names[directory], path);
    else into[0] = 0;
    return into;
}

static const char *named(int descriptor) { return descriptor >= 0 && descriptor < FILES ? names[descriptor] : ""; }

static uint64_t inode_of(int descriptor) {
    struct stat found;
    return fstat(descriptor, &found) ? 0 : found.st_ino;
}

static uint64_t inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : found.st_ino;
}

static int dies(void) { return kill(getpid(), SIGKILL); }

/* Whether this call is to fail (-1), to do half of what it should (1), or to be left alone (0). */
static int strikes(int call, const char *path, const char *what) {
    if (armed != 1 || !(calls & (1u << call)) || !ours(path)) return 0;
    int found = 0;
    pthread_mutex_lock(&lock);
    long nth = ++seen[call];
    if (++total == when && mode == KILL) dies();
    if (mode == ONCE || mode == SHORT || mode == HALF || mode == TORN) found = nth == when;
    if (mode == ALWAYS) found = nth >= when;
    int later = mode == HALF && nth > when;
    if (found && !struck[0]) snprintf(struck, sizeof struck, "%s %s", what, path);
    pthread_mutex_unlock(&lock);
    if (!found && !later) return 0;
    if (found && (mode == SHORT || mode == HALF || mode == TORN)) return 1;
    errno = failure;
    return -1;
}

static int opened(int directory, const char *path, int flags, mode_t rights) {
    char name[NAME];
    whole(directory, path, name);
    if (!ours(name)) {
        int other = real_openat64(directory, path, flags, rights);
        if (other >= 0 && other < FILES) snprintf(names[other], NAME, "%s", name);
        return other;
    }
    if (strikes(OPEN, name, "open") < 0) return -1;
    if (armed != 2) {
        int found = real_openat64(directory, path, flags, rights);
        if (found >= 0 && found < FILES) snprintf(names[found], NAME, "%s", name);
        return found;
    }
    pthread_mutex_lock(&lock);
    uint64_t before = flags & (O_CREAT | O_TRUNC) ? inode_at(name) : 1;
    int found = real_openat64(directory, path, flags, rights);
    int saved = errno;
    if (found >= 0 && found < FILES) {
        snprintf(names[found], NAME, "%s", name);
        if (!before) note(OPEN, inode_of(found), 0, 0, 0, 0, name, 0);
        else if (flags & O_TRUNC) note(TRUNCATE, before, 0, 0, 0, 0, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return found;
}

#define RIGHTS(flags) \
    mode_t rights = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); rights = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { RIGHTS(flags) return opened(AT_FDCWD, path, flags, rights); }
int open64(const char *path, int flags, ...) { RIGHTS(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, rights); }
int openat(int directory, const char *path, int flags, ...) { RIGHTS(flags) return opened(directory, path, flags, rights); }
int openat64(int directory, const char *path, int flags, ...) {
    RIGHTS(flags) return opened(directory, path, flags | O_LARGEFILE, rights);
}

int close(int descriptor) {
    if (descriptor >= 0 && descriptor < FILES) names[descriptor][0] = 0;
    return real_close(descriptor);
}

ssize_t read(int descriptor, void *data, size_t size) {
    return strikes(READ, named(descriptor), "read") < 0 ? -1 : real_read(descriptor, data, size);
}

static ssize_t read_at(int descriptor, void *data, size_t size, off_t offset) {
    return strikes(READ, named(descriptor), "pread") < 0 ? -1 : real_pread64(descriptor, data, size, offset);
}
ssize_t pread(int descriptor, void *data, size_t size, off_t offset) { return read_at(descriptor, data, size, offset); }
ssize_t pread64(int descriptor, void *data, size_t size, off_t offset) { return read_at(descriptor, data, size, offset); }

static ssize_t written(int descriptor, const void *data, size_t size, off_t offset, int placed) {
    const char *name = named(descriptor);
    int strike = strikes(WRITE, name, placed ? "pwrite" : "write");
    if (strike < 0) return -1;
    if (strike > 0 && size > 1) size /= 2;
    if (strike > 0 && mode == TORN) {
        if (placed) real_pwrite64(descriptor, data, size, offset); else real_write(descriptor, data, size);
        dies();
    }
    if (armed != 2 || !ours(name)) return placed ? real_pwrite64(descriptor, data, size, offset) : real_write(descriptor, data, size);
    pthread_mutex_lock(&lock);
    if (!placed) offset = fcntl(descriptor, F_GETFL) & O_APPEND ? lseek(descriptor, 0, SEEK_END) : lseek(descriptor, 0, SEEK_CUR);
    ssize_t done = placed ? real_pwrite64(descriptor, data, size, offset) : real_write(descriptor, data, size);
    int saved = errno;
    if (done > 0) note(WRITE, inode_of(descriptor), 0, offset, data, done, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
ssize_t write(int descriptor, const void *data, size_t size) { return written(descriptor, data, size, 0, 0); }
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) { return written(descriptor, data, size, offset, 1); }
ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t offset) { return written(descriptor, data, size, offset, 1); }

static int cut(int descriptor, off_t size) {
    const char *name = named(descriptor);
    if (strikes(TRUNCATE, name, "ftruncate") < 0) return -1;
    if (armed != 2 || !ours(name)) return real_ftruncate64(descriptor, size);
    pthread_mutex_lock(&lock);
    int done = real_ftruncate64(descriptor, size);
    int saved = errno;
    if (!done) note(TRUNCATE, inode_of(descriptor), 0, size, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
int ftruncate(int descriptor, off_t size) { return cut(descriptor, size); }
int ftruncate64(int descriptor, off_t size) { return cut(descriptor, size); }

static int synced(int descriptor, int call, int (*real)(int), const char *what) {
    const char *name = named(descriptor);
    if (strikes(call, name, what) < 0) return -1;
    if (armed != 2 || !ours(name)) return real(descriptor);
    pthread_mutex_lock(&lock);
    int done = real(descriptor);
    int saved = errno;
    if (!done) note(call, inode_of(descriptor), 0, 0, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
int fsync(int descriptor) { return synced(descriptor, FSYNC, real_fsync, "fsync"); }
int fdatasync(int descriptor) { return synced(descriptor, FSYNC, real_fdatasync, "fdatasync"); }
int syncfs(int descriptor) { return synced(descriptor, SYNCFS, real_syncfs, "syncfs"); }

int renameat(int from, const char *old, int to, const char *new) {
    char one[NAME], other[NAME];
    whole(from, old, one), whole(to, new, other);
    if (strikes(RENAME, other, "rename") < 0) return -1;
    if (armed != 2 || !ours(other)) return real_renameat(from, old, to, new);
    pthread_mutex_lock(&lock);
    int done = real_renameat(from, old, to, new);
    int saved = errno;
    if (!done) note(RENAME, 0, 0, 0, 0, 0, one, other);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
int rename(const char *old, const char *new) { return renameat(AT_FDCWD, old, AT_FDCWD, new); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    if (flags) { errno = EINVAL; return -1; }
    return renameat(from, old, to, new);
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    char one[NAME], other[NAME];
    whole(from, old, one), whole(to, new, other);
    if (strikes(LINK, other, "link") < 0) return -1;
    if (armed != 2 || !ours(other)) return real_linkat(from, old, to, new, flags);
    pthread_mutex_lock(&lock);
    int done = real_linkat(from, old, to, new, flags);
    int saved = errno;
    if (!done) note(LINK, 0, 0, 0, 0, 0, one, other);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int directory, const char *path, int flags) {
    char name[NAME];
    whole(directory, path, name);
    int call = flags & AT_REMOVEDIR ? RMDIR : UNLINK;
    if (strikes(call, name, flags & AT_REMOVEDIR ? "rmdir" : "unlink") < 0) return -1;
    if (armed != 2 || !ours(name)) return real_unlinkat(directory, path, flags);
    pthread_mutex_lock(&lock);
    int done = real_unlinkat(directory, path, flags);
    int saved = errno;
    if (!done) note(call, 0, 0, 0, 0, 0, name, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int directory, const char *path, mode_t rights) {
    char name[NAME];
    whole(directory, path, name);
    if (strikes(MKDIR, name, "mkdir") < 0) return -1;
    if (armed != 2 || !ours(name)) return real_mkdirat(directory, path, rights);
    pthread_mutex_lock(&lock);
    int done = real_mkdirat(directory, path, rights);
    int saved = errno;
    if (!done) note(MKDIR, inode_at(name), 0, 0, 0, 0, name, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
int mkdir(const char *path, mode_t rights) { return mkdirat(AT_FDCWD, path, rights); }

/* Copies in the kernel have no data to write down: who asks is told to copy by hand. */
static int by_hand(int descriptor) { return armed && ours(named(descriptor)); }
ssize_t sendfile64(int to, int from, off_t *offset, size_t size) {
    if (by_hand(to)) { errno = ENOTSOCK; return -1; }
    return real_sendfile64(to, from, offset, size);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t size) { return sendfile64(to, from, offset, size); }
ssize_t copy_file_range(int from, off_t *at, int to, off_t *into, size_t size, unsigned flags) {
    if (by_hand(to)) { errno = EXDEV; return -1; }
    return real_copy_file_range(from, at, to, into, size, flags);
}
