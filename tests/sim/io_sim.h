/* The simulated system behind io/io.h and io/thread.h: a disk and clocks in memory, driven by one seed.
 *
 * A test opens one with io_sim_open, runs code that was written for the real system on it, and uses the
 * calls below to crash, tear, rot and fill the disk. What the disk promises is what io.h promises and no
 * more: an unsynced write or name may or may not survive a crash, in any combination. */
#ifndef TESTS_IO_SIM_H
#define TESTS_IO_SIM_H

#include "io/io.h"
#include "io/thread.h"

/* Open an empty disk. Same seed and same calls: same bytes, times, random numbers and trace. */
err io_sim_open(uint64_t seed, struct io **out_io);

/* ---- crashes ---- */
enum io_sim_keep {
    IO_SIM_KEEP_NONE, /* nothing that was not synced */
    IO_SIM_KEEP_ALL,
    IO_SIM_KEEP_PREFIX,  /* of the names and of each file's writes, in order; the last one cut at a sector */
    IO_SIM_KEEP_SECTORS, /* a random subset of names and of sectors of 512 or pages of 4,096 bytes */
    IO_SIM_KEEP_TORN,    /* the same, and sectors may be half written, at any byte */
    IO_SIM_KEEP_COUNT,
};

/* The power goes and comes back: what is not durable is kept or lost as `keep` and `seed` say. Files still open
 * answer every later call with ERR_CLOSED; closing them stays allowed. Also ends crash_at_call and faults. */
void io_sim_crash(struct io *io, enum io_sim_keep keep, uint64_t seed);

/* The process dies and the machine stays up: open files are closed as by io_sim_crash, everything written is still
 * there, nothing of it became durable. */
void io_sim_kill(struct io *io);

/* Let the power go at the nth call from now (1 = the next): that call may or may not reach the disk (its
 * writes and names are pending, a sync has no effect), it and all later ones return ERR_IO and change
 * nothing, until io_sim_crash. 0 switches off. */
void io_sim_crash_at_call(struct io *io, uint64_t nth);
bool io_sim_is_down(const struct io *io);

/* Calls made since open, restore or crash that could fail: everything of io.h that returns err. */
uint64_t io_sim_calls(const struct io *io);

/* ---- faults ---- */
/* Let the nth call from now fail with `error`, and with sticky all calls after it that write (reads and lists too
 * when error is ERR_IO). A call that only reads fails with ERR_IO where ERR_SPACE was asked for. A failing write
 * leaves a random part of its bytes; after a failing sync the bytes it should have made durable are lost or not,
 * whatever later syncs say. 0 switches off. */
void io_sim_fault_at(struct io *io, uint64_t nth, bool sticky, err error);
/* How often a fault was returned since io_sim_fault_at. */
uint64_t io_sim_faults(const struct io *io);

/* Bytes the disk holds; 0 = without bound (io_space then tells 1 TiB). */
void io_sim_set_capacity(struct io *io, uint64_t bytes);

/* ---- what is on the disk ---- */
/* The current bytes of a file; borrowed until the next call. ERR_NOT_FOUND. */
err io_sim_bytes(struct io *io, const char *path, struct slice *out_bytes);
/* Damage the disk: flip one bit, or put other bytes there, cached copy included. ERR_NOT_FOUND, ERR_END. */
err io_sim_flip(struct io *io, const char *path, uint64_t bit_index);
err io_sim_overwrite(struct io *io, const char *path, uint64_t offset, struct slice bytes);
/* Bytes of all files that have a name. */
uint64_t io_sim_used(struct io *io);

/* ---- the whole disk as a value ---- */
struct io_sim_image;
/* What a clean shutdown would leave: everything written so far, synced or not. */
struct io_sim_image *io_sim_snapshot(struct io *io);
/* Back to it; open files as after a crash. Faults and crash_at_call are switched off; clocks and the random stream
 * start anew, so that what follows is the same each time. */
void io_sim_restore(struct io *io, const struct io_sim_image *image);
void io_sim_image_close(struct io_sim_image *image);

/* ---- threads ---- */
struct fiber_group;
/* From now on threads that are started with this io are fibers of the group (fibers.h); NULL: none can be, as at
 * first. */
void io_sim_run_threads(struct io *io, struct fiber_group *group);
struct fiber_group *io_sim_group(const struct io *io);

/* ---- clocks, chance, trace ---- */
void io_sim_clock_advance(struct io *io, int64_t ns);    /* all clocks */
void io_sim_clock_jump_ms(struct io *io, int64_t by_ms); /* the wall clock alone */
uint64_t io_sim_random(struct io *io);                   /* from the seed, apart from io_random's stream */
/* A hash over all calls so far with their arguments, bytes and results. */
uint64_t io_sim_trace(const struct io *io);

#endif
