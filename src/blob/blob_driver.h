/* The function table between blob.h and its drivers. A driver embeds struct blob and struct blob_handle as the
 * first member of its own structs. Keys are checked before a driver sees them. */
#ifndef BLOB_BLOB_DRIVER_H
#define BLOB_BLOB_DRIVER_H

#include "blob/blob.h"

struct blob_driver {
    void (*close)(struct blob *blob);
    err (*put)(struct blob *blob, const char *key, struct slice bytes);
    err (*replace)(struct blob *blob, const char *key, struct slice bytes);
    err (*put_file)(struct blob *blob, const char *key, const char *temp_path);
    err (*replace_file)(struct blob *blob, const char *key, const char *temp_path);
    err (*open_handle)(struct blob *blob, const char *key, struct blob_handle **out_handle);
    void (*handle_close)(struct blob_handle *handle);
    err (*read)(struct blob_handle *handle, uint64_t offset, void *at, size_t len);
    /* NULL: by open_handle and read */
    err (*get)(struct blob *blob, const char *key, size_t bytes_max, struct pool *pool,
               struct slice *out_bytes);
    err (*size)(struct blob *blob, const char *key, uint64_t *out_size);
    err (*list)(struct blob *blob, const char *prefix, struct pool *pool, struct blob_entry **out_entries,
                size_t *out_count);
    err (*delete_)(struct blob *blob, const char *key); /* `delete` is a word of C++ */
    /* NULL: the same bytes would come again */
    bool (*doubt)(struct blob *blob, const char *key);
    void (*tend)(struct blob *blob); /* NULL: nothing to do */
};

/* ERR_INPUT: no key. */
err blob_key_check(const char *key);

struct blob {
    const struct blob_driver *driver;
};

struct blob_handle {
    struct blob *blob;
    uint64_t size;
};

/* Bugs that tests plant in the directory driver to prove that the simulation finds them; 0 in the server. */
enum blob_plant {
    BLOB_PLANT_NO_DIR_SYNC = 1 << 0,    /* the name of an object is not made durable */
    BLOB_PLANT_NO_PARENT_SYNC = 1 << 1, /* a directory that is there is believed to be durable */
};
void blob_dir_plant(struct blob *blob, unsigned plants);

#endif
