/* Does the room's fold say what the tests' own reading of the rules says? */
#ifndef CLUSTER_CONTROL_COMPARE_H
#define CLUSTER_CONTROL_COMPARE_H

#include "cluster/control_model.h"
#include "cluster/members.h"
#include "cluster/placement.h"

static inline bool compare_offset(int64_t model, uint64_t offset)
{
    return model == MODEL_NEVER ? offset == UINT64_MAX : offset == (uint64_t)model;
}

static inline const char *compare_slot(const struct model *model, const struct members *members,
                                       uint32_t slot)
{
    static const struct member free_slot = { .status = MEMBER_NONE };
    const struct model_slot *a = &model->slots[slot];
    const struct member *b = slot < members_slot_count(members) ? members_at(members, slot) : &free_slot;
    if (a->status != (int)b->status)
        return "the status of a slot";
    if (a->status == MODEL_FREE)
        return NULL;
    if (a->incarnation != (int64_t)b->id.incarnation || a->taken != (int64_t)b->slot_since ||
        !compare_offset(a->end, b->ended_at))
        return "the life in a slot";
    if (strlen(b->name) != a->name.len || memcmp(a->name.at, b->name, a->name.len) != 0 ||
        strlen(b->zone) != a->zone.len || memcmp(a->zone.at, b->zone, a->zone.len) != 0 ||
        memcmp(a->disk, b->disk_id, 16) != 0 || memcmp(a->process, b->process_id, 16) != 0)
        return "who is in a slot";
    if (a->draining != b->is_draining || a->leaving != b->is_leaving || a->handing != b->hands_over)
        return "whether a node stays";
    if (!compare_offset(a->suspicion, b->suspicion) || a->claim != b->is_claimed || a->claims != b->claims ||
        (a->suspicion != MODEL_NEVER && a->suspicion_ms != b->suspected_ms))
        return "the suspicion against a node";
    if (a->status != MODEL_UP && a->end_ms != b->ended_ms)
        return "when a node ended";
    for (uint32_t i = 0; i < MODEL_SLOTS; i++)
        if (a->votes[i] != member_is_accused_by(b, i))
            return "the votes against a node";
    for (uint32_t p = 0; p < model->partitions; p++)
        if (a->owns[p] != member_owns(b, p))
            return "the owners of a partition";
    return NULL;
}

/* What differs; NULL: nothing. */
static inline const char *compare_states(const struct model *model, const struct members *members)
{
    if (model->begun != (members_init(members) != NULL))
        return "whether the cluster has begun";
    if (!model->begun)
        return NULL;
    for (uint32_t slot = 0; slot < MODEL_SLOTS; slot++) {
        const char *what = compare_slot(model, members, slot);
        if (what != NULL)
            return what;
    }
    for (uint32_t p = 0; p < model->partitions; p++) {
        const uint32_t *slots = members_assigned(members, p);
        if ((slots == NULL) != (model->assigned == MODEL_NEVER))
            return "whether anything is assigned";
        for (uint64_t i = 0; slots != NULL && i < model->replicas; i++)
            if (model->table[p][i] != (slots[i] == SLOT_NONE ? 0 : (uint64_t)slots[i] + 1))
                return "the assignment";
    }
    if (!compare_offset(model->changed, members_changed_at(members)))
        return "what an assignment is based on";
    if (model->now != members_now_ms(members) || model->last != members_append_ms(members))
        return "the time";
    if (model_age(model) != members_suspect_age_ms(members))
        return "the suspect age";
    for (int k = AUTOMATION_PLACEMENT; k < AUTOMATION_END; k++)
        if (model_is_suspended(model, k) !=
            members_is_suspended(members, (enum control_automation)k, members_append_ms(members)))
            return "what is suspended";
    return NULL;
}

#endif
