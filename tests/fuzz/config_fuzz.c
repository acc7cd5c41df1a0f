/* Fuzzing of configuration: any text → YAML tree → scrape_configs and discovery groups → targets. Nothing may
 * crash, leak, or say an error without a position. What loads is used: rules run on the targets it names. */
#include "base/check.h"
#include "ingest/scrape_target.h"
#include "model/yaml.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define POOL_BYTES (64u << 20)

static void use_config(struct scrape_config *config, struct pool *pool)
{
    for (size_t i = 0; i < config->job_count; i++) {
        const struct scrape_job *job = &config->jobs[i];
        for (size_t g = 0; g < job->group_count; g++) {
            for (size_t n = 0; n < job->groups[g].target_count; n++) {
                struct target_spec spec;
                struct target *target;
                if (target_build(job, &job->groups[g], n, slice_str("file"), pool, &spec) != OK ||
                    spec.is_dropped)
                    continue;
                check(labels_check(spec.labels, NULL) == OK);
                if (target_open(&spec, job, pool, &target) == OK)
                    target_close(target);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct pool *pool = pool_open(NULL, "fuzz", POOL_BYTES);
    struct yaml_node *root;
    struct scrape_config *config;
    struct scrape_group *groups;
    struct err_at at = { 0 };
    err e = yaml_parse(slice_of(bytes, len), pool, &root, &at);
    if (e == ERR_INPUT)
        check(at.line > 0 && strncmp(at.text, "line ", 5) == 0);
    if (e == OK && root->type == YAML_MAP) {
        e = scrape_config_load(yaml_get(root, "global"), yaml_get(root, "scrape_configs"), slice_str("dir"),
                               pool, &config, &at);
        if (e == ERR_INPUT)
            check(at.line > 0 && strncmp(at.text, "line ", 5) == 0);
        if (e == OK) {
            use_config(config, pool);
            scrape_config_release(config);
        }
    } else if (e == OK && root->type == YAML_SEQUENCE) {
        e = scrape_groups_load(root->items, root->count, pool, &groups, &at);
        if (e == ERR_INPUT)
            check(at.line > 0);
    }
    pool_close(pool);
    return 0;
}
