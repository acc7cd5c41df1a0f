/* The disk below io_sim.c: nodes (files and directories), each with what a reader sees now and what is durable. */
#ifndef TESTS_IO_SIM_DISK_H
#define TESTS_IO_SIM_DISK_H

#include "base/pool.h"
#include "sim/io_sim.h"

struct sim_bytes {
    uint8_t *at;
    size_t len;
    size_t capacity;
};

enum sim_write_kind { SIM_WRITE, SIM_TRUNCATE, SIM_EXTEND };

/* A change of a file that no sync has made durable. */
struct sim_write {
    struct sim_write *next;
    enum sim_write_kind kind;
    bool is_lossy;   /* a sync of it failed: later syncs do not write it */
    uint64_t offset; /* or the new size */
    size_t len;
    uint8_t bytes[];
};

struct sim_entry {
    char *name;
    struct sim_node *node;
};

struct sim_entries {
    struct sim_entry *at; /* sorted by name */
    size_t count;
    size_t capacity;
};

struct sim_node {
    struct sim_node *next; /* all nodes of the disk */
    uint64_t id;
    bool is_dir;
    bool is_marked; /* reachable, while unreachable ones are collected */
    unsigned open_count;
    const void *lock_owner;
    int64_t modified_ms;
    struct sim_bytes now, saved;
    struct sim_write *writes, *last_write;
    struct sim_entries names, saved_names;
};

/* A change of names that no directory sync has made durable: (from) disappears, (to) becomes node. */
struct sim_name_op {
    struct sim_name_op *next;
    struct sim_node *from_dir, *to_dir, *node;
    char *from_name, *to_name;
    bool is_chosen;
};

struct sim_disk {
    struct pool *pool;
    struct sim_node *root;
    struct sim_node *nodes;
    size_t node_count, collect_at;
    struct sim_name_op *name_ops, *last_name_op;
    uint64_t next_id;
};

uint64_t sim_random(uint64_t *state);

void sim_disk_init(struct sim_disk *disk);
void sim_disk_done(struct sim_disk *disk);
/* Copy what is seen now, as durable. */
void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from);

struct sim_node *sim_node_new(struct sim_disk *disk, bool is_dir);
/* The node of a path, NULL if there is none. */
struct sim_node *sim_find(struct sim_disk *disk, const char *path);
/* The directory of a path and the last part; NULL when the directory is missing. */
struct sim_node *sim_parent(struct sim_disk *disk, const char *path, const char **out_name);
struct sim_node *sim_lookup(const struct sim_entries *entries, const char *name);

/* Change names now, pending until synced. Either pair may be NULL. */
void sim_names_change(struct sim_disk *disk, struct sim_node *from_dir, const char *from_name,
                      struct sim_node *to_dir, const char *to_name, struct sim_node *node);
void sim_dir_sync(struct sim_disk *disk, struct sim_node *dir);

/* Change bytes now, pending until synced. */
void sim_write(struct sim_disk *disk, struct sim_node *node, uint64_t offset, struct slice bytes);
void sim_resize(struct sim_disk *disk, struct sim_node *node, enum sim_write_kind kind, uint64_t size);
void sim_file_sync(struct sim_disk *disk, struct sim_node *node);
/* A sync that fails: what is pending may reach the disk now or never. */
void sim_file_sync_failed(struct sim_disk *disk, struct sim_node *node, uint64_t *random);

/* Grow or shrink to len, new bytes zero. */
void sim_bytes_resize(struct sim_disk *disk, struct sim_bytes *bytes, size_t len);

void sim_disk_crash(struct sim_disk *disk, enum io_sim_keep keep, uint64_t seed);
/* Bytes of files that have a name or are open. */
uint64_t sim_disk_used(struct sim_disk *disk);

#endif
