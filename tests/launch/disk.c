/* Preloaded into a process of the tests: changes below one folder fail or are recorded.

   What can fail is what takes room or makes bytes and names durable: opening with O_CREAT, writes,
   ftruncate, mkdir, rename, fsync. Deleting is recorded alone, since a full disk allows it. A
   record is a line, NAME INODE OFFSET SIZE PATH-BYTES OTHER-BYTES, then the path, the other path
   and the data. Not seen is what makes system calls without the C library, as the rename of
   safetensors. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static long chosen, count;
static int code;
static FILE *record;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* From now on changes of `below` count from one, and change `number` fails with `error`: with
   ENOSPC all after it too. With `log` they are recorded there. Without a folder none does. */
void disk_watch(const char *below, long number, int error, const char *log) {
  pthread_mutex_lock(&one);
  if (record) fclose(record);
  record = log ? fopen(log, "w") : NULL;
  snprintf(folder, sizeof folder, "%s", below ? below : "");
  chosen = number, count = 0, code = error;
  pthread_mutex_unlock(&one);
}

/* Whether the change that begins now fails. With ENOSPC the first write still gets half its bytes
   to the disk, as it would: then `size` is less, and the next change fails. */
static int fails(size_t *size) {
  count++;
  if (!chosen || count < chosen || (count > chosen && code != ENOSPC)) return 0;
  if (code == ENOSPC && count == chosen && size && *size > 1) {
    *size /= 2;
    return 0;
  }
  errno = code;
  return 1;
}

static void note(const char *name, int fd, long offset, long size, const char *path,
                 const char *other, const struct iovec *data) {
  struct stat file = {0};
  if (!record) return;
  fstat(fd, &file);
  fprintf(record, "%s %lu %ld %ld %zu %zu\n%s%s", name, file.st_ino, offset, size, strlen(path),
          strlen(other), path, other);
  for (; data && size > 0; size -= data->iov_len, data++)
    fwrite(data->iov_base, 1, size < (long)data->iov_len ? size : (long)data->iov_len, record);
}

/* The full path of a file that is open, or of a name in an open folder; 0 where not watched. */
static int watched(int at, const char *name, char *path) {
  char link[64];
  size_t length = 0;
  if (!folder[0]) return 0;
  if (!name || name[0] != '/') {
    snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    ssize_t found = readlink(link, path, PATH_MAX - 1);
    if (found < 0) return 0;
    length = found;
    if (name) path[length++] = '/';
  }
  snprintf(path + length, PATH_MAX - length, "%s", name ? name : "");
  length = strlen(folder);
  return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* A call on an open file. */
#define ON_FILE(type, name, sizes, arguments, size, recorded)        \
  type name sizes {                                                  \
    char path[PATH_MAX];                                             \
    if (!watched(fd, NULL, path)) return REAL(name) arguments;       \
    pthread_mutex_lock(&one);                                        \
    type done = fails(size) ? -1 : REAL(name) arguments;             \
    int error = errno;                                               \
    if (done >= 0) recorded;                                         \
    pthread_mutex_unlock(&one);                                      \
    errno = error;                                                   \
    return done;                                                     \
  }

#define DATA (&(struct iovec){(void *)data, size})
#define HERE lseek(fd, 0, SEEK_CUR) - done
#define SYNCED note("sync", fd, 0, 0, path, "", NULL)
#define CUT note("cut", fd, size, 0, path, "", NULL)
#define PUT(at, parts) note("write", fd, at, done, path, "", parts)
ON_FILE(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), &size,
        PUT(HERE, DATA))
ON_FILE(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at),
        &size, PUT(at, DATA))
ON_FILE(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at),
        (fd, data, size, at), &size, PUT(at, DATA))
ON_FILE(ssize_t, writev, (int fd, const struct iovec *parts, int n), (fd, parts, n), NULL,
        PUT(HERE, parts))
ON_FILE(ssize_t, pwritev, (int fd, const struct iovec *parts, int n, off_t at), (fd, parts, n, at),
        NULL, PUT(at, parts))
ON_FILE(ssize_t, pwritev64, (int fd, const struct iovec *parts, int n, off64_t at),
        (fd, parts, n, at), NULL, PUT(at, parts))
ON_FILE(int, ftruncate, (int fd, off_t size), (fd, size), NULL, CUT)
ON_FILE(int, ftruncate64, (int fd, off64_t size), (fd, size), NULL, CUT)
ON_FILE(int, fsync, (int fd), (fd), NULL, SYNCED)
ON_FILE(int, fdatasync, (int fd), (fd), NULL, SYNCED)

/* A call on one or two names. */
#define ON_NAMES(name, sizes, arguments, at, path_of, new_at, new_path, counted, kind)     \
  int name sizes {                                                                         \
    char path[PATH_MAX], other[PATH_MAX] = "";                                             \
    const char *new_name = new_path;                                                       \
    if (!watched(at, path_of, path) || (new_name && !watched(new_at, new_name, other)))    \
      return REAL(name) arguments;                                                         \
    pthread_mutex_lock(&one);                                                              \
    int done = counted && fails(NULL) ? -1 : REAL(name) arguments;                         \
    int error = errno;                                                                     \
    if (done >= 0) note(kind, -1, 0, 0, path, other, NULL);                                    \
    pthread_mutex_unlock(&one);                                                            \
    errno = error;                                                                         \
    return done;                                                                           \
  }

#define CWD AT_FDCWD
#define RENAMED(flags) (flags) & RENAME_EXCHANGE ? "exchange" : "rename"
ON_NAMES(mkdir, (const char *name, mode_t mode), (name, mode), CWD, name, 0, NULL, 1, "mkdir")
ON_NAMES(mkdirat, (int at, const char *name, mode_t mode), (at, name, mode), at, name, 0, NULL, 1,
         "mkdir")
ON_NAMES(rename, (const char *old, const char *name), (old, name), CWD, old, CWD, name, 1,
         "rename")
ON_NAMES(renameat, (int at, const char *old, int to, const char *name), (at, old, to, name), at,
         old, to, name, 1, "rename")
ON_NAMES(renameat2, (int at, const char *old, int to, const char *name, unsigned flags),
         (at, old, to, name, flags), at, old, to, name, 1, RENAMED(flags))
ON_NAMES(unlink, (const char *name), (name), CWD, name, 0, NULL, 0, "remove")
ON_NAMES(rmdir, (const char *name), (name), CWD, name, 0, NULL, 0, "remove")
ON_NAMES(unlinkat, (int at, const char *name, int flags), (at, name, flags), at, name, 0, NULL, 0,
         "remove")

/* Opening counts where a file appears. */
#define ON_OPEN(name, sizes, arguments, at)                                           \
  int name sizes {                                                                           \
    va_list rest;                                                                            \
    va_start(rest, flags);                                                                   \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                  \
    va_end(rest);                                                                            \
    char path[PATH_MAX];                                                                     \
    struct stat there;                                                                       \
    if (!(flags & (O_CREAT | O_TRUNC)) || !watched(at, file, path)) return REAL(name) arguments; \
    pthread_mutex_lock(&one);                                                                \
    int appears = flags & O_CREAT && lstat(path, &there);                                    \
    int done = appears && fails(NULL) ? -1 : REAL(name) arguments;                           \
    int error = errno;                                                                       \
    if (done >= 0 && (appears || flags & O_TRUNC))                                           \
      note(appears ? "create" : "cut", done, 0, 0, path, "", NULL);                                \
    pthread_mutex_unlock(&one);                                                              \
    errno = error;                                                                           \
    return done;                                                                             \
  }
ON_OPEN(open, (const char *file, int flags, ...), (file, flags, mode), CWD)
ON_OPEN(open64, (const char *file, int flags, ...), (file, flags, mode), CWD)
ON_OPEN(openat, (int to, const char *file, int flags, ...), (to, file, flags, mode),
        to)
ON_OPEN(openat64, (int to, const char *file, int flags, ...), (to, file, flags, mode),
        to)
