/* A question to a running node. See ask.h. From: kelpie query, snapshot, retention. To: the node's HTTP API,
 * through the client of net/. One process asks once, so client and memory live as long as the question. */
#include "node/ask.h"

#include "base/buf.h"
#include "io/io.h"
#include "net/client.h"

#include <stdio.h>

#define HEADER_BYTES_MAX 4096

static err post(const struct ask_whom *whom, const struct ask_question *question, struct io *io,
                struct pool *pool, struct net_client_response *response, struct buf *body, struct err_at *at)
{
    char url[NET_CLIENT_URL_BYTES_MAX], tenant[HEADER_BYTES_MAX];
    const char *headers[2];
    size_t header_count = 0;
    struct net_client *client;
    if (snprintf(url, sizeof url, "%s%s", whom->url, question->path) >= (int)sizeof url)
        return err_set(at, ERR_LIMIT, "the URL is too long");
    if (snprintf(tenant, sizeof tenant, "X-Scope-OrgID: %s",
                 question->tenant != NULL ? question->tenant : "") >= (int)sizeof tenant)
        return err_set(at, ERR_LIMIT, "the tenant's name is too long");
    if (question->form.len > 0)
        headers[header_count++] = "Content-Type: application/x-www-form-urlencoded";
    if (question->tenant != NULL)
        headers[header_count++] = tenant;
    struct net_client_request request = {
        .url = url,
        .method = "POST",
        .headers = headers,
        .header_count = header_count,
        .body = question->form,
        .user = whom->user,
        .password = whom->password,
        .tls = { .ca_file = whom->ca_file },
        .accept_gzip = true,
        .timeout_ms = question->timeout_ms,
        .encoded_bytes_max = question->answer_bytes_max,
    };
    TRY(net_client_open(io, pool, &client));
    err e = net_client_do(client, &request, body, response, at);
    net_client_close(client);
    return e;
}

bool ask_post(const struct ask_whom *whom, const struct ask_question *question, struct pool *pool,
              unsigned *out_status, struct slice *out_body)
{
    struct net_client_response response;
    struct err_at at = { 0 };
    struct buf body = buf_open(pool, question->answer_bytes_max);
    struct io *io;
    err e = io_open(".", &io);
    if (e == OK) {
        e = post(whom, question, io, pool, &response, &body, &at);
        io_close(io);
    }
    if (e != OK) {
        fprintf(stderr, "kelpie %s: %s: %s\n", question->command, whom->url,
                at.text[0] != 0 ? at.text : err_text(e));
        return false;
    }
    *out_status = response.status;
    *out_body = buf_slice(&body);
    return true;
}

const struct yaml_node *ask_find(const struct yaml_node *map, const char *key)
{
    return map != NULL && map->type == YAML_MAP ? yaml_find(map, key) : NULL;
}

struct slice ask_text(const struct yaml_node *map, const char *key)
{
    const struct yaml_node *node = ask_find(map, key);
    return node != NULL && node->type == YAML_SCALAR ? node->text : slice_str("?");
}

const struct yaml_node *ask_list(const struct yaml_node *map, const char *key)
{
    const struct yaml_node *node = ask_find(map, key);
    return node != NULL && node->type == YAML_SEQUENCE ? node : NULL;
}

const struct yaml_node *ask_data(const char *command, struct slice body, struct pool *pool)
{
    struct yaml_node *root;
    struct err_at at = { 0 };
    if (yaml_parse(body, pool, &root, &at) != OK) {
        fprintf(stderr, "kelpie %s: the answer is not JSON: %s\n", command, at.text);
        return NULL;
    }
    const struct yaml_node *error = ask_find(root, "error"), *data = ask_find(root, "data");
    if (error == NULL && data != NULL)
        return data;
    fprintf(stderr, "kelpie %s: %.*s\n", command,
            SLICE_ARG(error != NULL ? error->text : slice_str("the answer has no data")));
    return NULL;
}
