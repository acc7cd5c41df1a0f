/* flip_stream DIRECTORY: changes a row of the first stream file below it that has one, with every checksum and SUM
 * right, of a node that does not run; prints the partition. Status 1: there is none. For tests/integration. */
#include "sim/flip.h"

#include <stdio.h>

/* The partition of the first that was changed, −1: none has a row, −2: it cannot be read. */
static int flip_first(struct io *io, struct pool *pool)
{
    struct io_dir_entry *entries;
    size_t count;
    if (io_dir_list(io, "", pool, &entries, &count) != OK)
        return -2;
    for (size_t i = 0; i < count; i++) {
        struct stream_name name;
        if (stream_name_parse(entries[i].name, &name) && flip_stream_row(io, entries[i].name, FLIP_ALL, pool))
            return (int)name.partition;
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct io *io;
    struct pool *pool = pool_open(NULL, "flip", POOL_BYTES_UNLIMITED);
    int partition = -2;
    if (argc == 2 && io_open(argv[1], &io) == OK) {
        partition = flip_first(io, pool);
        io_close(io);
    }
    pool_close(pool);
    printf("%d\n", partition);
    return partition >= 0 ? 0 : -partition;
}
