/* A leak to be found: loaded into a node by LD_PRELOAD (bench/soak.py --plant), a thread takes LEAK_BYTES of
 * memory ten times a second and a descriptor every two seconds, and never gives them back. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEAK_BYTES 16384 /* 160 KB/s: 144 MB in a quarter of an hour */

static void *leak(void *context)
{
    for (int n = 0;; n++) {
        void *at = malloc(LEAK_BYTES);
        if (at != NULL)
            memset(at, n, LEAK_BYTES);
        if (n % 20 == 0 && open("/dev/null", O_RDONLY | O_CLOEXEC) < 0)
            return context;
        usleep(100000);
    }
}

__attribute__((constructor)) static void begin(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, leak, NULL) == 0)
        pthread_detach(thread);
}
