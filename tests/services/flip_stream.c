/* flip_stream DIRECTORY: changes a row of the first stream file below it that has one, with every checksum and SUM
 * right, of a node that does not run; prints the partition. Status 1: there is none. For tests/integration. */
#include "sim/flip.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    struct io *io;
    struct io_dir_entry *entries;
    size_t count;
    struct pool *pool = pool_open(NULL, "flip", POOL_BYTES_UNLIMITED);
    if (argc != 2 || io_open(argv[1], &io) != OK || io_dir_list(io, "", pool, &entries, &count) != OK)
        return 2;
    for (size_t i = 0; i < count; i++) {
        struct stream_name name;
        if (!stream_name_parse(entries[i].name, &name) || !flip_stream_row(io, entries[i].name, true, pool))
            continue;
        printf("%u\n", name.partition);
        return 0;
    }
    return 1;
}
