/* The simulated system: io/io.h and io/thread.h over the disk of io_sim_disk.c.
 *
 * Every call that can fail passes through `enter`, which counts it, lets time pass, and decides whether it is
 * done, fails by injection, or finds the power gone. All chance comes from the seed.
 *
 * Invariants:
 *   1. Nothing outside the struct io decides anything: same seed and calls, same trace hash.
 *   2. While the power is gone no call changes anything; the call at which it went is pending, not durable.
 *   3. One thread: io_sim_thread.c. */
#include "sim/io_sim.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"
#include "sim/fibers.h"
#include "sim/io_sim_disk.h"

#define START_MS    INT64_C(1700000000000)
#define CALL_NS     INT64_C(2000)
#define SYNC_NS     INT64_C(100000)
#define TOTAL_BYTES (UINT64_C(1) << 40)

struct io_file {
    struct io_file *next;
    struct io *io;
    struct sim_node *node; /* NULL: a crash closed it */
    bool can_write;
};

struct io {
    struct pool *pool; /* files; the disk has its own */
    struct sim_disk disk;
    struct io_file *files; /* all that are not closed */
    uint64_t seed;
    uint64_t random, fault_random, user_random;
    uint64_t calls, trace, faults;
    uint64_t crash_at, fault_at; /* in calls; 0 = off */
    bool is_down, fault_sticky;
    err fault_error, fault_answer; /* of the fault at hand: a call that only reads finds no full disk */
    uint64_t capacity;
    int64_t monotonic_ns, wall_offset_ms;
    struct fiber_group *group; /* NULL: it has no threads */
};

struct io_sim_image {
    struct sim_disk disk;
    struct pool *pool;
};

enum call_kind {
    CALL_OPEN,
    CALL_READ,
    CALL_WRITE,
    CALL_SYNC,
    CALL_SIZE,
    CALL_RESIZE,
    CALL_NAMES,
    CALL_DIR_SYNC,
    CALL_LIST,
};

/* What `enter` decided: go on, fail without or after a part of the work, or do it as the power goes. */
enum verdict { DO, FAIL, LAST, DOWN };

static void trace(struct io *io, uint64_t a, uint64_t b, struct slice bytes)
{
    io->trace = hash_mix(io->trace ^ hash_mix(a ^ hash_mix(b))) ^ hash64(bytes, io->trace);
}

static bool kind_writes(enum call_kind kind)
{
    return kind != CALL_READ && kind != CALL_SIZE && kind != CALL_LIST;
}

static enum verdict enter(struct io *io, enum call_kind kind, uint64_t subject, struct slice bytes)
{
    io->calls++;
    io->monotonic_ns += kind == CALL_SYNC || kind == CALL_DIR_SYNC ? SYNC_NS : CALL_NS;
    trace(io, kind, subject, bytes);
    if (io->is_down)
        return DOWN;
    if (io->crash_at != 0 && io->calls >= io->crash_at) {
        io->is_down = true;
        return LAST;
    }
    bool again =
        io->fault_sticky && io->calls > io->fault_at && (io->fault_error == ERR_IO || kind_writes(kind));
    if (io->fault_at != 0 && (io->calls == io->fault_at || again)) {
        io->faults++;
        io->fault_answer = io->fault_error == ERR_SPACE && !kind_writes(kind) ? ERR_IO : io->fault_error;
        return FAIL;
    }
    return DO;
}

static err failure(const struct io *io, enum verdict verdict)
{
    return verdict == FAIL ? io->fault_answer : ERR_IO;
}

/* ---- open, close, crash ---- */

static void start(struct io *io)
{
    io->random = hash_mix(io->seed ^ 1);
    io->fault_random = hash_mix(io->seed ^ 2);
    io->user_random = hash_mix(io->seed ^ 3);
    io->calls = io->crash_at = io->fault_at = io->faults = 0;
    io->is_down = false;
    io->trace = io->seed;
    io->monotonic_ns = NS_PER_SECOND;
    io->wall_offset_ms = START_MS;
}

err io_sim_open(uint64_t seed, struct io **out_io)
{
    struct pool *pool = pool_open(NULL, "io_sim", POOL_BYTES_UNLIMITED);
    void *at = NULL;
    TRY(pool_zalloc(pool, sizeof(struct io), &at));
    struct io *io = at;
    io->pool = pool;
    io->seed = seed;
    sim_disk_init(&io->disk);
    start(io);
    *out_io = io;
    return OK;
}

err io_open(const char *root_path, struct io **out_io) { return io_sim_open(1, out_io); }

void io_close(struct io *io)
{
    if (io == NULL)
        return;
    sim_disk_done(&io->disk);
    pool_close(io->pool);
}

static void orphan_files(struct io *io)
{
    for (struct io_file *file = io->files; file != NULL; file = file->next) {
        if (file->node != NULL)
            file->node->open_count--;
        file->node = NULL;
    }
}

void io_sim_kill(struct io *io)
{
    orphan_files(io);
    for (struct sim_node *node = io->disk.nodes; node != NULL; node = node->next)
        node->lock_owner = NULL;
    io->is_down = false;
    io->calls = io->crash_at = io->fault_at = 0;
}

void io_sim_crash(struct io *io, enum io_sim_keep keep, uint64_t seed)
{
    io_sim_kill(io);
    sim_disk_crash(&io->disk, keep, seed);
}

void io_sim_crash_at_call(struct io *io, uint64_t nth) { io->crash_at = nth == 0 ? 0 : io->calls + nth; }

bool io_sim_is_down(const struct io *io) { return io->is_down; }
uint64_t io_sim_calls(const struct io *io) { return io->calls; }
uint64_t io_sim_faults(const struct io *io) { return io->faults; }
uint64_t io_sim_trace(const struct io *io) { return io->trace; }
uint64_t io_sim_random(struct io *io) { return sim_random(&io->user_random); }

void io_sim_fault_at(struct io *io, uint64_t nth, bool sticky, err error)
{
    io->fault_at = nth == 0 ? 0 : io->calls + nth;
    io->fault_sticky = sticky;
    io->fault_error = error;
    io->faults = 0;
}

void io_sim_set_capacity(struct io *io, uint64_t bytes) { io->capacity = bytes; }
uint64_t io_sim_used(struct io *io) { return sim_disk_used(&io->disk); }

struct io_sim_image *io_sim_snapshot(struct io *io)
{
    struct pool *pool = pool_open(NULL, "io_sim_image", POOL_BYTES_UNLIMITED);
    void *at = NULL;
    check(pool_zalloc(pool, sizeof(struct io_sim_image), &at) == OK);
    struct io_sim_image *image = at;
    image->pool = pool;
    sim_disk_copy(&image->disk, &io->disk);
    return image;
}

void io_sim_restore(struct io *io, const struct io_sim_image *image)
{
    orphan_files(io);
    sim_disk_done(&io->disk);
    sim_disk_copy(&io->disk, &image->disk);
    start(io);
}

void io_sim_image_close(struct io_sim_image *image)
{
    if (image == NULL)
        return;
    sim_disk_done(&image->disk);
    pool_close(image->pool);
}

/* ---- looking at and damaging the disk ---- */

static struct sim_node *find_file(struct io *io, const char *path)
{
    struct sim_node *node = sim_find(&io->disk, path);
    return node == NULL || node->is_dir ? NULL : node;
}

err io_sim_bytes(struct io *io, const char *path, struct slice *out_bytes)
{
    struct sim_node *node = find_file(io, path);
    if (node == NULL)
        return ERR_NOT_FOUND;
    *out_bytes = slice_of(node->now.at, node->now.len);
    return OK;
}

err io_sim_flip(struct io *io, const char *path, uint64_t bit_index)
{
    struct sim_node *node = find_file(io, path);
    if (node == NULL)
        return ERR_NOT_FOUND;
    size_t byte = (size_t)(bit_index / 8);
    uint8_t bit = (uint8_t)(1u << bit_index % 8);
    if (byte >= node->now.len)
        return ERR_END;
    node->now.at[byte] ^= bit;
    if (byte < node->saved.len)
        node->saved.at[byte] ^= bit;
    return OK;
}

err io_sim_overwrite(struct io *io, const char *path, uint64_t offset, struct slice bytes)
{
    struct sim_node *node = find_file(io, path);
    if (node == NULL)
        return ERR_NOT_FOUND;
    if (offset > node->now.len || bytes.len > node->now.len - offset)
        return ERR_END;
    memcpy(node->now.at + offset, bytes.at, bytes.len);
    if (offset + bytes.len <= node->saved.len)
        memcpy(node->saved.at + offset, bytes.at, bytes.len);
    return OK;
}

/* ---- files ---- */

static int64_t wall_ms(const struct io *io) { return io->wall_offset_ms + io->monotonic_ns / NS_PER_MS; }

/* Whether `more` bytes fit; ERR_SPACE otherwise. */
static err fits(struct io *io, uint64_t more)
{
    if (io->capacity == 0 || more == 0)
        return OK;
    uint64_t used = sim_disk_used(&io->disk);
    return used > io->capacity || more > io->capacity - used ? ERR_SPACE : OK;
}

err io_file_open(struct io *io, const char *path, enum io_open_mode mode, struct io_file **out_file)
{
    enum verdict verdict = enter(io, CALL_OPEN, mode, slice_str(path));
    if (verdict == FAIL || verdict == DOWN)
        return failure(io, verdict);
    struct sim_node *node = sim_find(&io->disk, path);
    if (node != NULL && (node->is_dir || mode == IO_CREATE))
        return node->is_dir ? ERR_CONFLICT : ERR_EXISTS;
    if (node == NULL) {
        const char *name;
        struct sim_node *dir = sim_parent(&io->disk, path, &name);
        if (dir == NULL || mode == IO_READ)
            return ERR_NOT_FOUND;
        node = sim_node_new(&io->disk, false);
        node->modified_ms = wall_ms(io);
        sim_names_change(&io->disk, NULL, NULL, dir, name, node);
    }
    if (verdict == LAST)
        return ERR_IO;
    void *at = NULL;
    check(pool_block_resize(io->pool, &at, sizeof(struct io_file)) == OK);
    struct io_file *file = at;
    *file = (struct io_file){ .next = io->files, .io = io, .node = node, .can_write = mode != IO_READ };
    io->files = file;
    node->open_count++;
    *out_file = file;
    return OK;
}

void io_file_close(struct io_file *file)
{
    if (file == NULL)
        return;
    struct io *io = file->io;
    struct io_file **link = &io->files;
    while (*link != file)
        link = &(*link)->next;
    *link = file->next;
    if (file->node != NULL) {
        file->node->open_count--;
        if (file->node->lock_owner == file)
            file->node->lock_owner = NULL;
    }
    pool_block_free(io->pool, file);
}

err io_file_read(struct io_file *file, uint64_t offset, void *at, size_t len, size_t *out_len)
{
    if (out_len != NULL)
        *out_len = 0;
    if (file->node == NULL)
        return ERR_CLOSED;
    uint64_t subject = hash_mix(file->node->id) ^ offset;
    enum verdict verdict = enter(file->io, CALL_READ, subject, slice_of(&len, sizeof len));
    if (verdict != DO)
        return failure(file->io, verdict);
    const struct sim_bytes *now = &file->node->now;
    size_t got = offset >= now->len ? 0 : now->len - (size_t)offset;
    if (got > len)
        got = len;
    if (got != 0)
        memcpy(at, now->at + offset, got);
    if (out_len != NULL)
        *out_len = got;
    return got == len ? OK : ERR_END;
}

err io_file_write(struct io_file *file, uint64_t offset, struct slice bytes)
{
    return io_file_write_all(file, offset, &bytes, 1);
}

/* One pending write of all parts, so that a crash treats them as the system treats one call. */
static void write_parts(struct io *io, struct sim_node *node, uint64_t offset, const struct slice *parts,
                        size_t part_count, size_t len)
{
    void *at = NULL;
    check(pool_block_resize(io->pool, &at, len + 1) == OK);
    size_t used = 0;
    for (size_t i = 0; i < part_count && used < len; i++) {
        size_t take = parts[i].len < len - used ? parts[i].len : len - used;
        if (take != 0)
            memcpy((uint8_t *)at + used, parts[i].at, take);
        used += take;
    }
    trace(io, offset, len, slice_of(at, used));
    sim_write(&io->disk, node, offset, slice_of(at, used));
    node->modified_ms = wall_ms(io);
    pool_block_free(io->pool, at);
}

err io_file_write_all(struct io_file *file, uint64_t offset, const struct slice *parts, size_t part_count)
{
    struct io *io = file->io;
    struct sim_node *node = file->node;
    if (node == NULL)
        return ERR_CLOSED;
    check(file->can_write);
    size_t len = 0;
    for (size_t i = 0; i < part_count; i++)
        len += parts[i].len;
    enum verdict verdict = enter(io, CALL_WRITE, hash_mix(node->id) ^ offset, slice_of(&len, sizeof len));
    if (verdict == DOWN)
        return ERR_IO;
    if (verdict == FAIL) { /* a short write that then fails */
        write_parts(io, node, offset, parts, part_count, (size_t)(sim_random(&io->fault_random) % (len + 1)));
        return io->fault_error;
    }
    uint64_t end = offset + len;
    err e = fits(io, end > node->now.len ? end - node->now.len : 0);
    if (e != OK)
        return e;
    write_parts(io, node, offset, parts, part_count, len);
    return verdict == LAST ? ERR_IO : OK;
}

err io_file_sync(struct io_file *file)
{
    if (file->node == NULL)
        return ERR_CLOSED;
    struct io *io = file->io;
    enum verdict verdict = enter(io, CALL_SYNC, file->node->id, slice_of(NULL, 0));
    if (verdict == DO) {
        sim_file_sync(&io->disk, file->node);
        return OK;
    }
    if (verdict == FAIL)
        sim_file_sync_failed(&io->disk, file->node, &io->fault_random);
    return failure(io, verdict);
}

err io_file_size(struct io_file *file, uint64_t *out_size)
{
    if (file->node == NULL)
        return ERR_CLOSED;
    enum verdict verdict = enter(file->io, CALL_SIZE, file->node->id, slice_of(NULL, 0));
    if (verdict != DO)
        return failure(file->io, verdict);
    *out_size = file->node->now.len;
    return OK;
}

static err resize(struct io_file *file, enum sim_write_kind kind, uint64_t size)
{
    if (file->node == NULL)
        return ERR_CLOSED;
    struct io *io = file->io;
    struct sim_node *node = file->node;
    check(file->can_write);
    enum verdict verdict = enter(io, CALL_RESIZE, hash_mix(node->id) ^ size, slice_of(&kind, sizeof kind));
    if (verdict == FAIL || verdict == DOWN)
        return failure(io, verdict);
    TRY(fits(io, size > node->now.len ? size - node->now.len : 0));
    sim_resize(&io->disk, node, kind, size);
    return verdict == LAST ? ERR_IO : OK;
}

err io_file_truncate(struct io_file *file, uint64_t size) { return resize(file, SIM_TRUNCATE, size); }
err io_file_allocate(struct io_file *file, uint64_t size) { return resize(file, SIM_EXTEND, size); }

err io_file_lock(struct io_file *file)
{
    if (file->node == NULL)
        return ERR_CLOSED;
    if (file->node->lock_owner != NULL && file->node->lock_owner != file)
        return ERR_BUSY;
    file->node->lock_owner = file;
    return OK;
}

void io_file_forget(struct io_file *file, uint64_t offset, uint64_t len) {}

/* ---- names ---- */

/* enter for a change of names: *out_now tells whether to make the change at all. */
static err enter_names(struct io *io, uint64_t subject, const char *path, enum verdict *out_verdict)
{
    *out_verdict = enter(io, CALL_NAMES, subject, slice_str(path));
    return *out_verdict == FAIL || *out_verdict == DOWN ? failure(io, *out_verdict) : OK;
}

err io_rename(struct io *io, const char *from, const char *to)
{
    enum verdict verdict;
    TRY(enter_names(io, hash64(slice_str(to), 1), from, &verdict));
    const char *from_name;
    const char *to_name;
    struct sim_node *from_dir = sim_parent(&io->disk, from, &from_name);
    struct sim_node *to_dir = sim_parent(&io->disk, to, &to_name);
    struct sim_node *node = from_dir == NULL ? NULL : sim_lookup(&from_dir->names, from_name);
    if (node == NULL || to_dir == NULL)
        return ERR_NOT_FOUND;
    sim_names_change(&io->disk, from_dir, from_name, to_dir, to_name, node);
    return verdict == LAST ? ERR_IO : OK;
}

err io_link(struct io *io, const char *from, const char *to)
{
    enum verdict verdict;
    TRY(enter_names(io, hash64(slice_str(to), 2), from, &verdict));
    const char *to_name;
    struct sim_node *node = find_file(io, from);
    struct sim_node *to_dir = sim_parent(&io->disk, to, &to_name);
    if (node == NULL || to_dir == NULL)
        return ERR_NOT_FOUND;
    if (sim_lookup(&to_dir->names, to_name) != NULL)
        return ERR_EXISTS;
    sim_names_change(&io->disk, NULL, NULL, to_dir, to_name, node);
    return verdict == LAST ? ERR_IO : OK;
}

err io_unlink(struct io *io, const char *path)
{
    enum verdict verdict;
    TRY(enter_names(io, 3, path, &verdict));
    const char *name;
    struct sim_node *dir = sim_parent(&io->disk, path, &name);
    struct sim_node *node = dir == NULL ? NULL : sim_lookup(&dir->names, name);
    if (node == NULL)
        return ERR_NOT_FOUND;
    if (node->is_dir)
        return ERR_CONFLICT;
    sim_names_change(&io->disk, dir, name, NULL, NULL, node);
    return verdict == LAST ? ERR_IO : OK;
}

err io_dir_create(struct io *io, const char *path)
{
    enum verdict verdict;
    TRY(enter_names(io, 4, path, &verdict));
    const char *name;
    struct sim_node *dir = sim_parent(&io->disk, path, &name);
    if (dir == NULL)
        return ERR_NOT_FOUND;
    if (sim_find(&io->disk, path) != NULL)
        return ERR_EXISTS;
    sim_names_change(&io->disk, NULL, NULL, dir, name, sim_node_new(&io->disk, true));
    return verdict == LAST ? ERR_IO : OK;
}

err io_dir_remove(struct io *io, const char *path)
{
    enum verdict verdict;
    TRY(enter_names(io, 5, path, &verdict));
    const char *name;
    struct sim_node *dir = sim_parent(&io->disk, path, &name);
    struct sim_node *node = dir == NULL ? NULL : sim_lookup(&dir->names, name);
    if (node == NULL || !node->is_dir)
        return ERR_NOT_FOUND;
    if (node->names.count != 0)
        return ERR_CONFLICT;
    sim_names_change(&io->disk, dir, name, NULL, NULL, node);
    return verdict == LAST ? ERR_IO : OK;
}

err io_dir_sync(struct io *io, const char *path)
{
    enum verdict verdict = enter(io, CALL_DIR_SYNC, 0, slice_str(path));
    if (verdict != DO)
        return failure(io, verdict);
    struct sim_node *dir = sim_find(&io->disk, path);
    if (dir == NULL || !dir->is_dir)
        return ERR_NOT_FOUND;
    sim_dir_sync(&io->disk, dir);
    return OK;
}

bool io_exists(struct io *io, const char *path) { return sim_find(&io->disk, path) != NULL; }

err io_path_size(struct io *io, const char *path, uint64_t *out_size, int64_t *out_modified_ms)
{
    enum verdict verdict = enter(io, CALL_SIZE, 0, slice_str(path));
    if (verdict != DO)
        return failure(io, verdict);
    const struct sim_node *node = sim_find(&io->disk, path);
    if (node == NULL)
        return ERR_NOT_FOUND;
    if (out_size != NULL)
        *out_size = node->now.len;
    if (out_modified_ms != NULL)
        *out_modified_ms = node->modified_ms;
    return OK;
}

err io_dir_list(struct io *io, const char *path, struct pool *pool, struct io_dir_entry **out_entries,
                size_t *out_count)
{
    enum verdict verdict = enter(io, CALL_LIST, 0, slice_str(path));
    if (verdict != DO)
        return failure(io, verdict);
    const struct sim_node *dir = sim_find(&io->disk, path);
    if (dir == NULL || !dir->is_dir)
        return ERR_NOT_FOUND;
    void *at = NULL;
    TRY(pool_alloc(pool, dir->names.count * sizeof(struct io_dir_entry), &at));
    struct io_dir_entry *list = at;
    for (size_t i = 0; i < dir->names.count; i++) {
        struct slice name;
        TRY(pool_copy(pool, slice_str(dir->names.at[i].name), &name));
        list[i] =
            (struct io_dir_entry){ .name = (const char *)name.at, .is_dir = dir->names.at[i].node->is_dir };
    }
    *out_entries = list;
    *out_count = dir->names.count;
    return OK;
}

err io_space(struct io *io, struct io_space *out_space)
{
    enum verdict verdict = enter(io, CALL_SIZE, 1, slice_of(NULL, 0));
    if (verdict != DO)
        return failure(io, verdict);
    uint64_t total = io->capacity == 0 ? TOTAL_BYTES : io->capacity;
    uint64_t used = sim_disk_used(&io->disk);
    *out_space = (struct io_space){ .total_bytes = total, .free_bytes = used < total ? total - used : 0 };
    return OK;
}

err io_path_absolute(struct io *io, const char *path, char out_path[IO_PATH_BYTES_MAX])
{
    int len = snprintf(out_path, IO_PATH_BYTES_MAX, "%s%s", path[0] != '/' ? "/" : "", path);
    return len >= IO_PATH_BYTES_MAX ? ERR_LIMIT : OK;
}

/* ---- clocks, chance, the machine ---- */

int64_t io_now_ms(struct io *io) { return wall_ms(io); }
int64_t io_monotonic_ns(struct io *io) { return io->monotonic_ns; }
int64_t io_boottime_ns(struct io *io) { return io->monotonic_ns; }
void io_sim_clock_jump_ms(struct io *io, int64_t by_ms) { io->wall_offset_ms += by_ms; }

void io_sim_clock_advance(struct io *io, int64_t ns)
{
    check(ns >= 0);
    io->monotonic_ns += ns;
}

void io_sleep_ns(struct io *io, int64_t ns)
{
    if (ns > 0 && fiber_runs())
        fiber_sleep(ns);
    else if (ns > 0)
        io->monotonic_ns += ns;
}

void io_sim_run_threads(struct io *io, struct fiber_group *group) { io->group = group; }
struct fiber_group *io_sim_group(const struct io *io) { return io->group; }

void io_random(struct io *io, void *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)at)[i] = (uint8_t)(sim_random(&io->random) >> 32);
}

unsigned io_cpu_count(struct io *io) { return 1; }
uint64_t io_memory_bytes(struct io *io) { return UINT64_C(4) << 30; }
