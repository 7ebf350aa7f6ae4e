/* Preloaded into a process, adds a millisecond to everything that makes data durable, as on the disks users have. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

#define SLOW(name)                                                                     \
    int name(int descriptor) {                                                         \
        static int (*real)(int);                                                       \
        struct timespec pause = {0, 1000000};                                          \
        if (!real)                                                                     \
            real = (int (*)(int))dlsym(RTLD_NEXT, #name);                              \
        nanosleep(&pause, 0);                                                          \
        return real(descriptor);                                                       \
    }

SLOW(fsync)
SLOW(fdatasync)
SLOW(syncfs)
