/* The simulated disk: nodes, names, and what a crash leaves of them.
 *
 * Every file has two contents: `now`, which readers see (the page cache), and `saved`, which is on the
 * platter, with the ordered list of writes between them. Every directory has two sets of names likewise;
 * changes of names are one ordered list for the whole disk, because a rename may touch two directories.
 *
 * Invariants:
 *   1. saved + writes in order = now, but for lossy writes (whose sync failed), which `saved` may lack for good.
 *   2. A name change becomes durable as a whole, by a sync of any directory it touches; together with
 *      it all earlier changes of the same names, so an old name never comes back after a newer one is durable.
 *   3. Memory belongs to the disk's own pool tree, so that injected allocation failures never hit it. */
#include "sim/io_sim_disk.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

#define SECTOR_BYTES  512u
#define PAGE_BYTES    4096u
#define COLLECT_NODES 64u

uint64_t sim_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return hash_mix(*state);
}

static void *block(struct sim_disk *disk, size_t bytes)
{
    void *at = NULL;
    check(pool_block_resize(disk->pool, &at, bytes) == OK);
    memset(at, 0, bytes);
    return at;
}

static char *copy_name(struct sim_disk *disk, const char *name)
{
    if (name == NULL)
        return NULL;
    char *copy = block(disk, strlen(name) + 1);
    memcpy(copy, name, strlen(name));
    return copy;
}

void sim_bytes_resize(struct sim_disk *disk, struct sim_bytes *bytes, size_t len)
{
    if (len > bytes->capacity) {
        size_t capacity = bytes->capacity * 2 > len ? bytes->capacity * 2 : len;
        void *at = bytes->at;
        check(pool_block_resize(disk->pool, &at, capacity) == OK);
        bytes->at = at;
        bytes->capacity = capacity;
    }
    if (len > bytes->len)
        memset(bytes->at + bytes->len, 0, len - bytes->len);
    bytes->len = len;
}

static void bytes_put(struct sim_disk *disk, struct sim_bytes *bytes, uint64_t offset, const uint8_t *from,
                      size_t len)
{
    if (len == 0)
        return;
    if (offset + len > bytes->len)
        sim_bytes_resize(disk, bytes, (size_t)offset + len);
    memcpy(bytes->at + offset, from, len);
}

/* ---- names ---- */

/* The index of name, or where it would be. */
static size_t entry_place(const struct sim_entries *entries, const char *name)
{
    size_t i = 0;
    while (i < entries->count && strcmp(entries->at[i].name, name) < 0)
        i++;
    return i;
}

struct sim_node *sim_lookup(const struct sim_entries *entries, const char *name)
{
    size_t i = entry_place(entries, name);
    return i < entries->count && strcmp(entries->at[i].name, name) == 0 ? entries->at[i].node : NULL;
}

static void entry_remove(struct sim_disk *disk, struct sim_entries *entries, const char *name)
{
    size_t i = entry_place(entries, name);
    if (i == entries->count || strcmp(entries->at[i].name, name) != 0)
        return;
    pool_block_free(disk->pool, entries->at[i].name);
    memmove(entries->at + i, entries->at + i + 1, (entries->count - i - 1) * sizeof entries->at[0]);
    entries->count--;
}

static void entry_set(struct sim_disk *disk, struct sim_entries *entries, const char *name,
                      struct sim_node *node)
{
    size_t i = entry_place(entries, name);
    if (i < entries->count && strcmp(entries->at[i].name, name) == 0) {
        entries->at[i].node = node;
        return;
    }
    void *at = entries->at;
    size_t bytes = sizeof entries->at[0];
    check(pool_block_reserve(disk->pool, &at, bytes, entries->count + 1, &entries->capacity) == OK);
    entries->at = at;
    memmove(entries->at + i + 1, entries->at + i, (entries->count - i) * sizeof entries->at[0]);
    entries->at[i] = (struct sim_entry){ .name = copy_name(disk, name), .node = node };
    entries->count++;
}

static void entries_free(struct sim_disk *disk, struct sim_entries *entries)
{
    for (size_t i = 0; i < entries->count; i++)
        pool_block_free(disk->pool, entries->at[i].name);
    pool_block_free(disk->pool, entries->at);
    *entries = (struct sim_entries){ 0 };
}

static void entries_copy(struct sim_disk *disk, struct sim_entries *to, const struct sim_entries *from)
{
    entries_free(disk, to);
    for (size_t i = 0; i < from->count; i++)
        entry_set(disk, to, from->at[i].name, from->at[i].node);
}

static struct sim_node *find(struct sim_disk *disk, const char *path, size_t len)
{
    struct sim_node *node = disk->root;
    size_t at = 0;
    while (node != NULL && at < len) {
        if (path[at] == '/') {
            at++;
            continue;
        }
        size_t part = 0;
        while (at + part < len && path[at + part] != '/')
            part++;
        char name[IO_PATH_BYTES_MAX];
        check(part < sizeof name);
        memcpy(name, path + at, part);
        name[part] = '\0';
        if (strcmp(name, ".") != 0)
            node = node->is_dir ? sim_lookup(&node->names, name) : NULL;
        at += part;
    }
    return node;
}

struct sim_node *sim_find(struct sim_disk *disk, const char *path) { return find(disk, path, strlen(path)); }

struct sim_node *sim_parent(struct sim_disk *disk, const char *path, const char **out_name)
{
    const char *slash = strrchr(path, '/');
    *out_name = slash == NULL ? path : slash + 1;
    struct sim_node *dir = find(disk, path, slash == NULL ? 0 : (size_t)(slash - path));
    return dir != NULL && dir->is_dir ? dir : NULL;
}

void sim_names_change(struct sim_disk *disk, struct sim_node *from_dir, const char *from_name,
                      struct sim_node *to_dir, const char *to_name, struct sim_node *node)
{
    struct sim_name_op *op = block(disk, sizeof *op);
    *op = (struct sim_name_op){
        .from_dir = from_dir,
        .from_name = copy_name(disk, from_name),
        .to_dir = to_dir,
        .to_name = copy_name(disk, to_name),
        .node = node,
    };
    if (disk->last_name_op == NULL)
        disk->name_ops = op;
    else
        disk->last_name_op->next = op;
    disk->last_name_op = op;
    if (op->from_dir != NULL)
        entry_remove(disk, &op->from_dir->names, op->from_name);
    if (op->to_dir != NULL)
        entry_set(disk, &op->to_dir->names, op->to_name, op->node);
}

static bool names_equal(const struct sim_node *dir_a, const char *a, const struct sim_node *dir_b,
                        const char *b)
{
    return dir_a != NULL && dir_a == dir_b && strcmp(a, b) == 0;
}

static bool ops_share_name(const struct sim_name_op *a, const struct sim_name_op *b)
{
    return names_equal(a->from_dir, a->from_name, b->from_dir, b->from_name) ||
           names_equal(a->from_dir, a->from_name, b->to_dir, b->to_name) ||
           names_equal(a->to_dir, a->to_name, b->from_dir, b->from_name) ||
           names_equal(a->to_dir, a->to_name, b->to_dir, b->to_name);
}

/* Make the chosen changes durable, in order, and keep the others pending; `all_done`: drop those. */
static void names_settle(struct sim_disk *disk, bool all_done)
{
    struct sim_name_op **link = &disk->name_ops;
    disk->last_name_op = NULL;
    while (*link != NULL) {
        struct sim_name_op *op = *link;
        if (!op->is_chosen && !all_done) {
            disk->last_name_op = op;
            link = &op->next;
            continue;
        }
        if (op->is_chosen && op->from_dir != NULL)
            entry_remove(disk, &op->from_dir->saved_names, op->from_name);
        if (op->is_chosen && op->to_dir != NULL)
            entry_set(disk, &op->to_dir->saved_names, op->to_name, op->node);
        *link = op->next;
        pool_block_free(disk->pool, op->from_name);
        pool_block_free(disk->pool, op->to_name);
        pool_block_free(disk->pool, op);
    }
}

static void writes_free(struct sim_disk *disk, struct sim_node *node)
{
    while (node->writes != NULL) {
        struct sim_write *next = node->writes->next;
        pool_block_free(disk->pool, node->writes);
        node->writes = next;
    }
    node->last_write = NULL;
}

static void mark(struct sim_node *node)
{
    if (node == NULL || node->is_marked)
        return;
    node->is_marked = true;
    for (size_t i = 0; i < node->names.count; i++)
        mark(node->names.at[i].node);
    for (size_t i = 0; i < node->saved_names.count; i++)
        mark(node->saved_names.at[i].node);
}

/* Free nodes that no name, pending change or open file leads to. */
static void collect(struct sim_disk *disk)
{
    for (struct sim_node *node = disk->nodes; node != NULL; node = node->next)
        node->is_marked = false;
    mark(disk->root);
    for (struct sim_name_op *op = disk->name_ops; op != NULL; op = op->next) {
        mark(op->from_dir);
        mark(op->to_dir);
        mark(op->node);
    }
    struct sim_node **link = &disk->nodes;
    while (*link != NULL) {
        struct sim_node *node = *link;
        if (node->is_marked || node->open_count != 0) {
            link = &node->next;
            continue;
        }
        *link = node->next;
        disk->node_count--;
        writes_free(disk, node);
        entries_free(disk, &node->names);
        entries_free(disk, &node->saved_names);
        pool_block_free(disk->pool, node->now.at);
        pool_block_free(disk->pool, node->saved.at);
        pool_block_free(disk->pool, node);
    }
}

void sim_dir_sync(struct sim_disk *disk, struct sim_node *dir)
{
    for (struct sim_name_op *op = disk->name_ops; op != NULL; op = op->next)
        op->is_chosen = op->from_dir == dir || op->to_dir == dir;
    bool changed = true;
    while (changed) { /* invariant 2: earlier changes of the same names come along */
        changed = false;
        for (struct sim_name_op *op = disk->name_ops; op != NULL; op = op->next)
            for (struct sim_name_op *later = op->next; later != NULL && !op->is_chosen; later = later->next)
                if (later->is_chosen && ops_share_name(op, later))
                    op->is_chosen = changed = true;
    }
    names_settle(disk, false);
    if (disk->node_count > disk->collect_at) {
        collect(disk);
        disk->collect_at = 2 * disk->node_count + COLLECT_NODES;
    }
}

/* ---- nodes ---- */

struct sim_node *sim_node_new(struct sim_disk *disk, bool is_dir)
{
    struct sim_node *node = block(disk, sizeof *node);
    node->id = disk->next_id++;
    node->is_dir = is_dir;
    node->next = disk->nodes;
    disk->nodes = node;
    disk->node_count++;
    return node;
}

void sim_disk_init(struct sim_disk *disk)
{
    *disk = (struct sim_disk){ .pool = pool_open(NULL, "io_sim_disk", POOL_BYTES_UNLIMITED), .next_id = 1 };
    disk->root = sim_node_new(disk, true);
}

void sim_disk_done(struct sim_disk *disk)
{
    pool_close(disk->pool);
    *disk = (struct sim_disk){ 0 };
}

static void copy_into(struct sim_disk *to, struct sim_node *to_dir, const struct sim_node *from_dir)
{
    for (size_t i = 0; i < from_dir->names.count; i++) {
        const struct sim_node *from = from_dir->names.at[i].node;
        struct sim_node *node = sim_node_new(to, from->is_dir);
        node->modified_ms = from->modified_ms;
        bytes_put(to, &node->now, 0, from->now.at, from->now.len);
        bytes_put(to, &node->saved, 0, from->now.at, from->now.len);
        entry_set(to, &to_dir->names, from_dir->names.at[i].name, node);
        entry_set(to, &to_dir->saved_names, from_dir->names.at[i].name, node);
        copy_into(to, node, from);
    }
}

void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from)
{
    sim_disk_init(to);
    copy_into(to, to->root, from->root); /* hard links become copies: files with two names never change */
}

uint64_t sim_disk_used(struct sim_disk *disk)
{
    for (struct sim_node *node = disk->nodes; node != NULL; node = node->next)
        node->is_marked = false;
    mark(disk->root);
    uint64_t used = 0;
    for (struct sim_node *node = disk->nodes; node != NULL; node = node->next)
        if (node->is_marked || node->open_count != 0)
            used += node->now.len > node->saved.len ? node->now.len : node->saved.len;
    return used;
}

/* ---- bytes ---- */

static void write_apply(struct sim_disk *disk, struct sim_bytes *bytes, const struct sim_write *write)
{
    if (write->kind == SIM_WRITE)
        bytes_put(disk, bytes, write->offset, write->bytes, write->len);
    else if (write->kind == SIM_TRUNCATE || write->offset > bytes->len)
        sim_bytes_resize(disk, bytes, (size_t)write->offset);
}

static void write_add(struct sim_disk *disk, struct sim_node *node, enum sim_write_kind kind, uint64_t offset,
                      struct slice bytes)
{
    struct sim_write *write = block(disk, sizeof *write + bytes.len);
    write->kind = kind;
    write->offset = offset;
    write->len = bytes.len;
    if (bytes.len != 0)
        memcpy(write->bytes, bytes.at, bytes.len);
    if (node->last_write == NULL)
        node->writes = write;
    else
        node->last_write->next = write;
    node->last_write = write;
    write_apply(disk, &node->now, write);
}

void sim_write(struct sim_disk *disk, struct sim_node *node, uint64_t offset, struct slice bytes)
{
    write_add(disk, node, SIM_WRITE, offset, bytes);
}

void sim_resize(struct sim_disk *disk, struct sim_node *node, enum sim_write_kind kind, uint64_t size)
{
    write_add(disk, node, kind, size, slice_of(NULL, 0));
}

void sim_file_sync(struct sim_disk *disk, struct sim_node *node)
{
    for (struct sim_write *write = node->writes; write != NULL; write = write->next)
        if (!write->is_lossy)
            write_apply(disk, &node->saved, write);
    writes_free(disk, node);
}

void sim_file_sync_failed(struct sim_disk *disk, struct sim_node *node, uint64_t *random)
{
    for (struct sim_write *write = node->writes; write != NULL; write = write->next) {
        if (!write->is_lossy && sim_random(random) % 4 == 0)
            write_apply(disk, &node->saved, write);
        write->is_lossy = true;
    }
}

/* Apply sectors of a write, or whole pages as the system tends to, each with chance 1/2; with `torn` some
 * are cut inside. */
static void write_apply_sectors(struct sim_disk *disk, struct sim_node *node, const struct sim_write *write,
                                bool torn, uint64_t *random)
{
    uint64_t at = write->offset;
    uint64_t end = write->offset + write->len;
    uint64_t unit = sim_random(random) % 2 == 0 ? SECTOR_BYTES : PAGE_BYTES;
    while (at < end) {
        uint64_t next = (at / unit + 1) * unit;
        if (next > end)
            next = end;
        size_t len = (size_t)(next - at);
        if (sim_random(random) % 2 == 0) {
            if (torn && sim_random(random) % 4 == 0)
                len = (size_t)(sim_random(random) % (len + 1));
            bytes_put(disk, &node->saved, at, write->bytes + (at - write->offset), len);
        }
        at = next;
    }
}

/* All pending writes up to a random one, which is cut at a sector. */
static void writes_apply_prefix(struct sim_disk *disk, struct sim_node *node, uint64_t *random)
{
    uint64_t count = 0;
    for (struct sim_write *write = node->writes; write != NULL; write = write->next)
        count++;
    uint64_t whole = sim_random(random) % (count + 1);
    for (struct sim_write *write = node->writes; write != NULL; write = write->next, whole--) {
        if (whole > 0) {
            write_apply(disk, &node->saved, write);
            continue;
        }
        if (write->kind == SIM_WRITE) {
            uint64_t cut = write->offset + sim_random(random) % (write->len + 1);
            cut -= cut % SECTOR_BYTES;
            if (cut > write->offset)
                bytes_put(disk, &node->saved, write->offset, write->bytes, (size_t)(cut - write->offset));
        }
        break;
    }
}

static void crash_writes(struct sim_disk *disk, struct sim_node *node, enum io_sim_keep keep,
                         uint64_t *random)
{
    if (keep == IO_SIM_KEEP_PREFIX) {
        writes_apply_prefix(disk, node, random);
    } else if (keep != IO_SIM_KEEP_NONE) {
        for (struct sim_write *write = node->writes; write != NULL; write = write->next) {
            if (keep == IO_SIM_KEEP_ALL)
                write_apply(disk, &node->saved, write);
            else if (write->kind == SIM_WRITE)
                write_apply_sectors(disk, node, write, keep == IO_SIM_KEEP_TORN, random);
            else if (sim_random(random) % 2 == 0)
                write_apply(disk, &node->saved, write);
        }
    }
    writes_free(disk, node);
    sim_bytes_resize(disk, &node->now, 0);
    bytes_put(disk, &node->now, 0, node->saved.at, node->saved.len);
}

void sim_disk_crash(struct sim_disk *disk, enum io_sim_keep keep, uint64_t seed)
{
    uint64_t random = seed;
    uint64_t count = 0;
    for (struct sim_name_op *op = disk->name_ops; op != NULL; op = op->next)
        count++;
    uint64_t prefix = sim_random(&random) % (count + 1);
    uint64_t index = 0;
    for (struct sim_name_op *op = disk->name_ops; op != NULL; op = op->next, index++) {
        if (keep == IO_SIM_KEEP_NONE || keep == IO_SIM_KEEP_ALL)
            op->is_chosen = keep == IO_SIM_KEEP_ALL;
        else if (keep == IO_SIM_KEEP_PREFIX)
            op->is_chosen = index < prefix;
        else
            op->is_chosen = sim_random(&random) % 2 == 0;
    }
    names_settle(disk, true);
    for (struct sim_node *node = disk->nodes; node != NULL; node = node->next) {
        node->lock_owner = NULL;
        crash_writes(disk, node, keep, &random);
        entries_copy(disk, &node->names, &node->saved_names);
    }
    collect(disk);
}
