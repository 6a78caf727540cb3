/* A host whose clock somebody sets, for one process: loaded with LD_PRELOAD, it adds to CLOCK_REALTIME the seconds that
   the file named by MARTLET_HOST_CLOCK says, whatever they are at the moment. The monotonic clock does not jump, as it
   does not on a host. Waits until a time of day last until that time is on the clock, as the kernel's do.

   Not libfaketime: it moves the environment, and Swift's runtime, which looks for the arguments beside it, finds none. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t zero = 0;
static const volatile int64_t *offset = &zero;

__attribute__((constructor)) static void find_clock(void) {
  const char *path = getenv("MARTLET_HOST_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
  if (map != MAP_FAILED) offset = map;
  close(file);
}

static void real_now(struct timespec *at) { syscall(SYS_clock_gettime, CLOCK_REALTIME, at); }

int clock_gettime(clockid_t clock, struct timespec *at) {
  int result = (int)syscall(SYS_clock_gettime, clock, at);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += *offset;
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

/* In slices, since the clock may jump meanwhile. Returns whether the time has come; else when the slice ends. */
static int next_slice(const struct timespec *until, struct timespec *end) {
  int64_t left = ((int64_t)until->tv_sec - *offset) * 1000000000 + until->tv_nsec;
  real_now(end);
  left -= (int64_t)end->tv_sec * 1000000000 + end->tv_nsec;
  if (left <= 0) return 1;
  if (left > 50000000) left = 50000000;
  end->tv_nsec += (long)left;
  if (end->tv_nsec >= 1000000000) { end->tv_sec += 1; end->tv_nsec -= 1000000000; }
  return 0;
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
  static int (*real)(sem_t *, const struct timespec *);
  if (!real) real = (int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
  for (;;) {
    struct timespec end;
    int is_over = next_slice(until, &end);
    if (real(semaphore, &end) == 0) return 0;
    if (errno != ETIMEDOUT || is_over) return -1;
  }
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (!real)
    real = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  /* Which clock a condition runs on cannot be asked; the monotonic one counts from the host's start. */
  if (until->tv_sec < 1000000000) return real(condition, mutex, until);
  for (;;) {
    struct timespec end;
    int is_over = next_slice(until, &end);
    int result = real(condition, mutex, &end);
    if (result != ETIMEDOUT || is_over) return result;
  }
}
#endif
