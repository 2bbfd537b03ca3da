#include "postings.h"

#include <stdlib.h>
#include <string.h>

#define DENSE 8      /* a segment is read from end to end where one slot in so many may have a score */
#define FIRST_ROOM 4096

typedef struct {
    float *values; /* a heap of the highest scores, the lowest of them first */
    int64_t count, size;
} Highest;

static void sift_down(Highest *heap, float value) {
    int64_t place = 0, child;
    while ((child = 2 * place + 1) < heap->count) {
        if (child + 1 < heap->count && heap->values[child + 1] < heap->values[child])
            child++;
        if (heap->values[child] >= value)
            break;
        heap->values[place] = heap->values[child];
        place = child;
    }
    heap->values[place] = value;
}

static void sift_up(Highest *heap, float value) {
    int64_t place = heap->count++;
    while (place && heap->values[(place - 1) / 2] > value) {
        heap->values[place] = heap->values[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    heap->values[place] = value;
}

/* Make room for one more, first by dropping what is below the border. */
static int make_room(Found *found, const Highest *heap) {
    int64_t kept = 0;
    if (found->count < found->room)
        return 1;
    for (int64_t i = 0; i < found->count; i++)
        if (heap->count < heap->size || found->scores[i] >= heap->values[0]) {
            found->slots[kept] = found->slots[i];
            found->scores[kept++] = found->scores[i];
        }
    found->count = kept;
    if (kept <= found->room / 2 && found->room)
        return 1;
    int64_t room = found->room ? 2 * found->room : FIRST_ROOM;
    uint32_t *slots = realloc(found->slots, (size_t)room * sizeof *slots);
    if (slots)
        found->slots = slots;
    float *scores = realloc(found->scores, (size_t)room * sizeof *scores);
    if (scores)
        found->scores = scores;
    found->room = slots && scores ? room : found->room;
    return slots && scores;
}

static int keep(Found *found, Highest *heap, uint32_t slot, float score) {
    if (heap->count == heap->size) {
        if (score < heap->values[0])
            return 1;
        if (score > heap->values[0])
            sift_down(heap, score);
    } else
        sift_up(heap, score);
    if (!make_room(found, heap))
        return 0;
    found->slots[found->count] = slot;
    found->scores[found->count++] = score;
    return 1;
}

typedef struct {
    double *totals; /* of one segment */
    uint16_t *touched;
    const uint8_t *allowed;
    int64_t slots;
} Work;

static int keep_total(const Work *work, Found *found, Highest *heap, int64_t segment, int64_t place) {
    int64_t slot = segment * SEGMENT_SLOTS + place;
    float score = (float)work->totals[place];
    work->totals[place] = 0;
    if (score > 0 && (!work->allowed || (slot < work->slots && work->allowed[slot])))
        return keep(found, heap, (uint32_t)slot, score);
    return 1;
}

/* Add up one segment's lists; which places were touched is written down where they are few. */
static int64_t add_up(const Work *work, const Posting *lists, int64_t count, int few) {
    int64_t touched = 0;
    for (int64_t i = 0; i < count; i++) {
        const char *places = lists[i].bytes, *weights = places + 2 * lists[i].count;
        for (int64_t entry = 0; entry < lists[i].count; entry++) {
            uint16_t place;
            float weight;
            memcpy(&place, places + 2 * entry, 2);
            memcpy(&weight, weights + 4 * entry, 4);
            place &= SEGMENT_SLOTS - 1;
            if (few)
                work->touched[touched++] = place;
            work->totals[place] += (double)weight * lists[i].weight;
        }
    }
    return touched;
}

static int best_of_segment(const Work *work, const Posting *lists, int64_t count, Found *found, Highest *heap) {
    int64_t entries = 0, segment = lists[0].segment;
    for (int64_t i = 0; i < count; i++)
        entries += lists[i].count;
    int few = entries < SEGMENT_SLOTS / DENSE;
    int64_t touched = add_up(work, lists, count, few);
    for (int64_t i = 0; i < touched; i++)
        if (!keep_total(work, found, heap, segment, work->touched[i]))
            return 0;
    if (few)
        return 1;
    for (int64_t place = 0; place < SEGMENT_SLOTS; place++)
        if (work->totals[place] > 0 && !keep_total(work, found, heap, segment, place))
            return 0;
    memset(work->totals, 0, SEGMENT_SLOTS * sizeof *work->totals);
    return 1;
}

int best_postings(const Posting *lists, int64_t count, const uint8_t *allowed, int64_t slots, int64_t depth, Found *found) {
    int64_t entries = 0, first = 0, last;
    for (int64_t i = 0; i < count; i++)
        entries += lists[i].count;
    Highest heap = {NULL, 0, depth < entries ? depth : entries};
    memset(found, 0, sizeof *found);
    if (!heap.size)
        return 1;
    Work work = {calloc(SEGMENT_SLOTS, sizeof(double)), malloc(SEGMENT_SLOTS / DENSE * sizeof(uint16_t)), allowed, slots};
    heap.values = malloc((size_t)heap.size * sizeof(float));
    int done = work.totals && work.touched && heap.values;
    for (; done && first < count; first = last) {
        for (last = first + 1; last < count && lists[last].segment == lists[first].segment;)
            last++;
        done = best_of_segment(&work, lists + first, last - first, found, &heap);
    }
    free(work.totals);
    free(work.touched);
    free(heap.values);
    if (!done)
        free_found(found);
    return done;
}

void free_found(Found *found) {
    free(found->slots);
    free(found->scores);
    memset(found, 0, sizeof *found);
}
