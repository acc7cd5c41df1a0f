/* Producers. See producer.h.
 *
 * A series number means something only together with the producer's incarnation, and a reader of the log knows
 * its labels only from a record that carried both. So:
 *
 * Invariants (protocol §1)
 *  1. The incarnation is drawn from the system's random bytes at start and at each renewal, never stored.
 *  2. Within an incarnation a number is given to one series and to no other, ever.
 *  3. A mark says: a record with this series' labels was positively acknowledged in this epoch. Every record
 *     that uses a number without a mark carries the labels. Anything but a positive acknowledgement starts a
 *     new epoch, which clears all marks at once, before anything else is sent.
 *  4. An acknowledgement not above the last one is not positive: the log went back.
 *  5. Nor is one of a later generation of the log than the one in which its record was begun: the record may use
 *     numbers whose labels were lost with the former one. Marks are cleared before the later generation is known
 *     to anybody, so who has read it, and then the epoch, trusts no mark of the former. */
#include "ingest/producer.h"

void producer_forget_marks(struct producer *producer)
{
    uint32_t epoch = atomic_load(&producer->epoch);
    while (!atomic_compare_exchange_weak(&producer->epoch, &epoch, epoch + 1 == 0 ? 1 : epoch + 1))
        ;
}

void producer_renew(struct producer *producer, struct io *io)
{
    io_random(io, producer->incarnation, sizeof producer->incarnation);
    producer->next_number = 0;
    producer->live = 0;
    producer->dead = 0;
    producer->renewed_ns = io_monotonic_ns(io);
    atomic_store(&producer->sequence, 0);
    atomic_store(&producer->given_up, 0);
    producer_forget_marks(producer);
}

static bool is_above(struct log_position a, struct log_position b)
{
    return a.generation != b.generation ? a.generation > b.generation : a.offset > b.offset;
}

bool producer_hear(struct producer *producer, uint64_t generation)
{
    uint64_t known = atomic_load(&producer->generation);
    if (generation <= known)
        return false;
    producer_forget_marks(producer);
    while (known < generation && !atomic_compare_exchange_weak(&producer->generation, &known, generation))
        ;
    return true;
}

bool producer_acked(struct producer *producer, uint64_t generation, err result, struct log_position position)
{
    if (result == OK && (!producer->has_acked || is_above(position, producer->acked))) {
        producer->has_acked = true;
        producer->acked = position;
        (void)producer_hear(producer, position.generation);
        if (position.generation == generation)
            return true;
    }
    atomic_fetch_add(&producer->given_up, 1);
    producer_forget_marks(producer);
    return false;
}
