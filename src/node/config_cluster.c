/* The settings of a node in a cluster: `cluster`, `log.kafka` and `blob`, as the table of config.c has read them.
 *
 * Nothing here opens a file or a connection: rooms check again what they are given, and that with names that
 * can be resolved. A secret has no key of its own in the document: whoever writes one gets an unknown key. */
#include "node/config_cluster.h"

#include <string.h>

#include "model/yaml.h"

/* ---- texts ---- */

static bool is_letter_or_digit(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_made_of(struct slice text, const char *more)
{
    for (size_t i = 0; i < text.len; i++)
        if (!is_letter_or_digit(text.at[i]) && strchr(more, text.at[i]) == NULL)
            return false;
    return text.len > 0;
}

static bool is_name(struct slice text) { return is_made_of(text, "_-.") && text.at[0] != '.'; }

static bool is_topic(struct slice text)
{
    return is_made_of(text, "_-.") && !slice_equal_str(text, ".") && !slice_equal_str(text, "..");
}

static bool is_bucket(struct slice text)
{
    return is_made_of(text, "._-") && text.at[0] != '.' && text.at[0] != '-';
}

/* What blob.h takes for a key. */
static bool is_prefix(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        bool begins_part = i == 0 || text.at[i - 1] == '/';
        if (begins_part && (text.at[i] == '/' || text.at[i] == '.'))
            return false;
    }
    return is_made_of(text, "._-/") && text.at[text.len - 1] != '/';
}

/* What a header or a line could not hold is none. */
static bool is_word(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] <= ' ' || text.at[i] > '~')
            return false;
    return true;
}

static bool is_path(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] < ' ' || text.at[i] > '~')
            return false;
    return text.at[text.len - 1] != '/';
}

/* Digits from `from` to the end that say 1 to 65535. */
static bool is_port(struct slice text, size_t from)
{
    unsigned port = 0;
    for (size_t i = from; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9' || port > 65535)
            return false;
        port = port * 10 + (text.at[i] - '0');
    }
    return port >= 1 && port <= 65535;
}

/* A name or an IPv4 address, or an IPv6 address in brackets. */
static bool is_host(struct slice text)
{
    if (text.len > 2 && text.at[0] == '[' && text.at[text.len - 1] == ']')
        return is_made_of(slice_part(text, 1, text.len - 2), ":.%");
    return is_made_of(text, ".-_");
}

static bool is_address(struct slice text)
{
    size_t colon = text.len;
    while (colon > 0 && text.at[colon - 1] != ':')
        colon--;
    return colon > 1 && is_host(slice_part(text, 0, colon - 1)) && is_port(text, colon);
}

static bool is_addresses(struct slice text)
{
    for (size_t from = 0; from <= text.len;) {
        const uint8_t *comma = memchr(text.at + from, ',', text.len - from);
        size_t to = comma != NULL ? (size_t)(comma - text.at) : text.len;
        if (!is_address(slice_part(text, from, to - from)))
            return false;
        from = to + 1;
    }
    return true;
}

static bool is_endpoint(struct slice text)
{
    size_t scheme = slice_starts(text, slice_str("https://"))  ? 8
                    : slice_starts(text, slice_str("http://")) ? 7
                                                               : 0;
    struct slice rest = slice_part(text, scheme, text.len - scheme);
    return scheme > 0 && (is_host(rest) || is_address(rest));
}

const struct config_text config_name = { is_name,
                                         "letters, digits, '-', '_' and '.', not beginning with '.'" };
const struct config_text config_word = { is_word, "printable, without spaces" };
const struct config_text config_path = { is_path, "the path of a file in printable ASCII" };
const struct config_text config_address = { is_address, "HOST:PORT" };
const struct config_text config_addresses = { is_addresses, "HOST:PORT or several, divided by ','" };
const struct config_text config_topic = { is_topic, "letters, digits, '-', '_' and '.'" };
const struct config_text config_endpoint = { is_endpoint, "http://HOST or https://HOST, maybe with :PORT" };
const struct config_text config_bucket = { is_bucket, "letters, digits, '-', '_' and '.'" };
const struct config_text config_prefix = {
    is_prefix, "A-Z a-z 0-9 . _ - in parts divided by '/', none beginning with '.'"
};

/* ---- all together ---- */

/* One thing that must not be: a sentence about the section it is in. */
struct conflict {
    bool is_there;
    const struct yaml_node *section; /* whose position is told */
    const char *says;
};

static err refuse_first(const struct conflict *conflicts, size_t count, struct err_at *at)
{
    for (size_t i = 0; i < count; i++)
        if (conflicts[i].is_there)
            return yaml_error(conflicts[i].section, ERR_INPUT, at, "%s", conflicts[i].says);
    return OK;
}

#define REFUSE(conflicts, at) refuse_first(conflicts, sizeof(conflicts) / sizeof((conflicts)[0]), at)

static bool is_set(const char *text) { return text[0] != 0; }

static err check_kafka(const struct config_kafka *k, const struct yaml_node *kafka, struct err_at *at)
{
    bool has_sasl = k->mechanism != CONFIG_SASL_NONE;
    const struct conflict conflicts[] = {
        { !is_set(k->bootstrap), kafka, "log.kafka needs bootstrap" },
        { !is_set(k->topic), kafka, "log.kafka needs topic" },
        { !is_set(k->control_topic), kafka, "log.kafka needs control_topic" },
        { strcmp(k->topic, k->control_topic) == 0, kafka, "log.kafka: topic and control_topic are the same" },
        { !k->tls && (is_set(k->ca_file) || is_set(k->cert_file) || k->insecure_skip_verify), kafka,
          "log.kafka.tls has settings, but not enabled: true" },
        { is_set(k->cert_file) != is_set(k->key_file), kafka,
          "log.kafka.tls needs cert_file and key_file, or none of them" },
        { has_sasl && (!is_set(k->user) || !is_set(k->password_file)), kafka,
          "log.kafka.sasl needs user and password_file" },
        { !has_sasl && (is_set(k->user) || is_set(k->password_file)), kafka,
          "log.kafka.sasl has a user or a password_file, but no mechanism" },
        { k->mechanism == CONFIG_SASL_PLAIN && !k->tls, kafka,
          "log.kafka.sasl: mechanism plain sends the password as it is, and needs tls" },
    };
    return REFUSE(conflicts, at);
}

static err check_s3(const struct config_s3 *s, const struct yaml_node *s3, struct err_at *at)
{
    bool is_https = strncmp(s->endpoint, "https:", 6) == 0;
    bool is_static = s->credentials == CONFIG_CREDENTIALS_STATIC;
    bool is_file = s->credentials == CONFIG_CREDENTIALS_FILE;
    const struct conflict conflicts[] = {
        { !is_set(s->endpoint), s3, "blob.s3 needs endpoint" },
        { !is_set(s->bucket), s3, "blob.s3 needs bucket" },
        { !is_https && (is_set(s->ca_file) || s->insecure_skip_verify), s3,
          "blob.s3: ca_file and insecure_skip_verify are for an endpoint of https://" },
        { is_https && s->virtual_host && strchr(s->bucket, '.') != NULL, s3,
          "blob.s3: with virtual_host a bucket with a '.' fits no certificate" },
        { is_static && (!is_set(s->access_key) || !is_set(s->secret_key_file)), s3,
          "blob.s3: credentials static needs access_key and secret_key_file" },
        { !is_static && (is_set(s->access_key) || is_set(s->secret_key_file)), s3,
          "blob.s3: access_key and secret_key_file are for credentials static" },
        { is_file && !is_set(s->credentials_file), s3, "blob.s3: credentials file needs credentials_file" },
        { !is_file && is_set(s->credentials_file), s3, "blob.s3: credentials_file is for credentials file" },
    };
    return REFUSE(conflicts, at);
}

static const struct yaml_node *part_of(const struct yaml_node *map, const char *key)
{
    const struct yaml_node *node = map != NULL ? yaml_find(map, key) : NULL;
    return node == NULL || yaml_is_null(node) ? NULL : node;
}

err config_cluster_check(const struct yaml_node *root, struct config_cluster *c, struct err_at *at)
{
    const struct yaml_node *cluster = part_of(root, "cluster"),
                           *kafka = part_of(part_of(root, "log"), "kafka");
    const struct yaml_node *blob = part_of(root, "blob"), *s3 = part_of(blob, "s3");
    c->is_given = cluster != NULL || kafka != NULL || blob != NULL;
    if (!c->is_given)
        return OK;
    const struct conflict conflicts[] = {
        { cluster == NULL && kafka != NULL, kafka,
          "log.kafka is for a node in a cluster: cluster is missing" },
        { cluster == NULL && blob != NULL, blob, "blob is for a node in a cluster: cluster is missing" },
        { !is_set(c->name), cluster, "cluster needs name" },
        { !is_set(c->address), cluster, "cluster needs address" },
        { !is_set(c->secret_file), cluster, "cluster needs secret_file" },
        { kafka == NULL, cluster, "cluster needs log.kafka" },
        { s3 == NULL, cluster, "cluster needs blob.s3" },
    };
    TRY(REFUSE(conflicts, at));
    TRY(check_kafka(&c->kafka, kafka, at));
    return check_s3(&c->s3, s3, at);
}
