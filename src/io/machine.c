/* Clocks, chance and the machine, over Linux.
 *
 * Memory: the least of the installed RAM and every cgroup limit on the way from our own group to the
 * root, in either version of the hierarchy; a container's view may begin anywhere on that way, so
 * groups that are not visible are skipped.
 *
 * Invariants:
 *   1. Clocks and random bytes never fail on a supported kernel (3.17 and later); a failure is a failed check. */
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/time.h"

#define SMALL_FILE_BYTES_MAX 8192

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    check(clock_gettime(clock, &now) == 0);
    return (int64_t)now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

int64_t io_now_ms(struct io *io) { return clock_ns(CLOCK_REALTIME) / NS_PER_MS; }
int64_t io_monotonic_ns(struct io *io) { return clock_ns(CLOCK_MONOTONIC); }
int64_t io_boottime_ns(struct io *io) { return clock_ns(CLOCK_BOOTTIME); }

void io_sleep_ns(struct io *io, int64_t ns)
{
    if (ns <= 0)
        return;
    struct timespec left = { .tv_sec = (time_t)(ns / NS_PER_SECOND), .tv_nsec = (long)(ns % NS_PER_SECOND) };
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
}

void io_random(struct io *io, void *at, size_t len)
{
    uint8_t *next = at;
    while (len > 0) {
        ssize_t got = getrandom(next, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        check(got > 0);
        next += got;
        len -= (size_t)got;
    }
}

unsigned io_cpu_count(struct io *io)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (unsigned)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more than 1,024 processors */
    return online > 0 ? (unsigned)online : 1;
}

/* The beginning of a small file of the system as a string; empty when it cannot be read. */
static void read_small(const char *path, char out_text[SMALL_FILE_BYTES_MAX])
{
    out_text[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    size_t len = 0;
    while (len < SMALL_FILE_BYTES_MAX - 1) {
        ssize_t got = read(fd, out_text + len, SMALL_FILE_BYTES_MAX - 1 - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    out_text[len] = '\0';
    close(fd);
}

/* The limit in the file `name` of a group; UINT64_MAX when there is none ("max", absent). */
static uint64_t group_limit(const char *mount, const char *group, const char *name)
{
    char path[SMALL_FILE_BYTES_MAX];
    char text[SMALL_FILE_BYTES_MAX];
    int printed = snprintf(path, sizeof path, "%s%s/%s", mount, group, name);
    if (printed < 0 || (size_t)printed >= sizeof path)
        return UINT64_MAX;
    read_small(path, text);
    if (text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

/* The least limit from `group` up to the mount's root. group is cut in place. */
static uint64_t least_limit(const char *mount, char *group, const char *name)
{
    uint64_t least = UINT64_MAX;
    for (;;) {
        size_t len = strlen(group);
        while (len > 0 && group[len - 1] == '/')
            group[--len] = '\0';
        uint64_t limit = group_limit(mount, group, name);
        if (limit < least)
            least = limit;
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

/* controllers is the second field of a line of /proc/self/cgroup, comma-separated. */
static bool names_memory(const char *controllers)
{
    for (const char *at = controllers; at != NULL; at = strchr(at, ',')) {
        if (*at == ',')
            at++;
        if (strncmp(at, "memory", 6) == 0 && (at[6] == ',' || at[6] == '\0'))
            return true;
    }
    return false;
}

static uint64_t cgroup_limit(void)
{
    char text[SMALL_FILE_BYTES_MAX];
    read_small("/proc/self/cgroup", text);
    uint64_t least = UINT64_MAX;
    char *lines = NULL;
    for (char *line = strtok_r(text, "\n", &lines); line != NULL; line = strtok_r(NULL, "\n", &lines)) {
        char *controllers = strchr(line, ':');
        char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (group == NULL)
            continue;
        controllers++;
        *group++ = '\0';
        uint64_t limit = UINT64_MAX;
        if (controllers[0] == '\0')
            limit = least_limit("/sys/fs/cgroup", group, "memory.max");
        else if (names_memory(controllers))
            limit = least_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
        if (limit < least)
            least = limit;
    }
    return least;
}

uint64_t io_memory_bytes(struct io *io)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    check(pages > 0);
    check(page_bytes > 0);
    uint64_t installed = (uint64_t)pages * (uint64_t)page_bytes;
    uint64_t limit = cgroup_limit();
    return limit < installed ? limit : installed;
}

uint64_t io_files_max_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    struct rlimit most = { .rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max };
    return setrlimit(RLIMIT_NOFILE, &most) == 0 ? most.rlim_cur : limit.rlim_cur;
}

bool io_stderr_is_terminal(void) { return isatty(STDERR_FILENO) == 1; }
