/* The door of the object store: checks keys and hands over to the driver.
 *
 * Invariants:
 *   1. A driver sees only keys of the bounded alphabet, so no key leaves its directory or needs quoting. */
#include "blob/blob.h"

#include <string.h>

#include "base/check.h"
#include "blob/blob_driver.h"

static bool is_key_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

err blob_key_check(const char *key)
{
    size_t len = strlen(key);
    if (len == 0 || len > BLOB_KEY_BYTES_MAX || key[len - 1] == '/')
        return ERR_INPUT;
    for (size_t i = 0; i < len; i++) {
        bool begins_part = i == 0 || key[i - 1] == '/';
        if (begins_part && (key[i] == '.' || key[i] == '/'))
            return ERR_INPUT;
        if (key[i] != '/' && !is_key_byte(key[i]))
            return ERR_INPUT;
    }
    return OK;
}

void blob_close(struct blob *blob)
{
    if (blob != NULL)
        blob->driver->close(blob);
}

err blob_put(struct blob *blob, const char *key, struct slice bytes)
{
    TRY(blob_key_check(key));
    return blob->driver->put(blob, key, bytes);
}

err blob_replace(struct blob *blob, const char *key, struct slice bytes)
{
    TRY(blob_key_check(key));
    return blob->driver->replace(blob, key, bytes);
}

err blob_put_file(struct blob *blob, const char *key, const char *temp_path)
{
    TRY(blob_key_check(key));
    return blob->driver->put_file(blob, key, temp_path);
}

err blob_replace_file(struct blob *blob, const char *key, const char *temp_path)
{
    TRY(blob_key_check(key));
    return blob->driver->replace_file(blob, key, temp_path);
}

err blob_open(struct blob *blob, const char *key, struct blob_handle **out_handle)
{
    TRY(blob_key_check(key));
    return blob->driver->open_handle(blob, key, out_handle);
}

void blob_handle_close(struct blob_handle *handle)
{
    if (handle != NULL)
        handle->blob->driver->handle_close(handle);
}

err blob_read(struct blob_handle *handle, uint64_t offset, void *at, size_t len)
{
    return handle->blob->driver->read(handle, offset, at, len);
}

uint64_t blob_handle_size(const struct blob_handle *handle) { return handle->size; }

err blob_get(struct blob *blob, const char *key, size_t bytes_max, struct pool *pool, struct slice *out_bytes)
{
    if (blob->driver->get != NULL) {
        TRY(blob_key_check(key));
        return blob->driver->get(blob, key, bytes_max, pool, out_bytes);
    }
    struct blob_handle *handle = NULL;
    TRY(blob_open(blob, key, &handle));
    err e = OK;
    void *at = NULL;
    uint64_t size = handle->size;
    if (size > bytes_max) {
        e = ERR_LIMIT;
        goto out;
    }
    TRY_OUT(pool_alloc(pool, (size_t)size + 1, &at));
    TRY_OUT(blob_read(handle, 0, at, (size_t)size));
    ((char *)at)[size] = '\0';
    *out_bytes = slice_of(at, (size_t)size);
out:
    blob_handle_close(handle);
    return e;
}

err blob_size(struct blob *blob, const char *key, uint64_t *out_size)
{
    TRY(blob_key_check(key));
    return blob->driver->size(blob, key, out_size);
}

err blob_list(struct blob *blob, const char *prefix, struct pool *pool, struct blob_entry **out_entries,
              size_t *out_count)
{
    TRY(blob_key_check(prefix));
    return blob->driver->list(blob, prefix, pool, out_entries, out_count);
}

err blob_delete(struct blob *blob, const char *key)
{
    TRY(blob_key_check(key));
    return blob->driver->delete_(blob, key);
}

bool blob_doubt(struct blob *blob, const char *key)
{
    return blob->driver->doubt != NULL && blob_key_check(key) == OK && blob->driver->doubt(blob, key);
}

void blob_tend(struct blob *blob)
{
    if (blob->driver->tend != NULL)
        blob->driver->tend(blob);
}
