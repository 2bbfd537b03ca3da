#include "postings.h"
#include "cpu.h"
#include "parallel.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 32        /* totals looked at together */
#define DENSE 8         /* a segment is read from end to end where one slot in so many may have a score */
#define ENTRIES 256     /* of a list, multiplied together before they are spread over the totals */
#define PARTS 64        /* at most, each a thread's work */
#define ENTRIES_A_THREAD 300000 /* worth a thread: 300 microseconds, some times what starting one takes */
#define FIRST_ROOM 4096 /* for what was found */
#define ROUNDING 1e-6   /* of a double to a float, relative: some eight of its steps */
#define SMALLEST_FLOAT 1.5e-45 /* the step between floats next to 0 */
#define SMALLEST 1e-46  /* above 0, and below every float that is not 0 */

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
    const uint8_t *allowed;
    int64_t slots;
} Work;

/* Sums below this cannot come up to the border, not even by rounding to float. */
static double least(const Highest *heap) {
    return heap->count < heap->size ? SMALLEST : (double)heap->values[0] * (1 - ROUNDING) - SMALLEST_FLOAT;
}

static int keep_total(const Work *work, Found *found, Highest *heap, int64_t segment, int64_t place) {
    int64_t slot = segment * SEGMENT_SLOTS + place;
    float score = (float)work->totals[place];
    if (score > 0 && (!work->allowed || (slot < work->slots && work->allowed[slot])))
        return keep(found, heap, (uint32_t)slot, score);
    return 1;
}

INLINE void add_list(const Posting *list, double *restrict totals) {
    double parts[ENTRIES];
    uint16_t places[ENTRIES];
    float weights[ENTRIES];
    for (int64_t first = 0; first < list->count; first += ENTRIES) {
        int64_t here = list->count - first < ENTRIES ? list->count - first : ENTRIES;
        memcpy(places, list->bytes + 2 * first, 2 * (size_t)here);
        memcpy(weights, list->bytes + 2 * list->count + 4 * first, 4 * (size_t)here);
        for (int64_t entry = 0; entry < here; entry++)
            parts[entry] = (double)weights[entry] * list->weight;
        for (int64_t entry = 0; entry < here; entry++)
            totals[places[entry] & (SEGMENT_SLOTS - 1)] += parts[entry];
    }
}

/* The places of lists that have few entries, each looked at once: a total that was read is 0 again. */
static int best_of_few(const Work *work, const Posting *lists, int64_t count, Found *found, Highest *heap) {
    for (int64_t i = 0; i < count; i++)
        for (int64_t entry = 0; entry < lists[i].count; entry++) {
            uint16_t place;
            memcpy(&place, lists[i].bytes + 2 * entry, 2);
            place &= SEGMENT_SLOTS - 1;
            if (work->totals[place] >= least(heap) && !keep_total(work, found, heap, lists[i].segment, place))
                return 0;
            work->totals[place] = 0;
        }
    return 1;
}

INLINE int best_of_segment(const Work *work, const Posting *lists, int64_t count, Found *found, Highest *heap) {
    int64_t entries = 0;
    for (int64_t i = 0; i < count; i++) {
        entries += lists[i].count;
        add_list(lists + i, work->totals);
    }
    if (entries < SEGMENT_SLOTS / DENSE)
        return best_of_few(work, lists, count, found, heap);
    double border = least(heap);
    for (int64_t first = 0; first < SEGMENT_SLOTS; first += BLOCK) {
        int any = 0;
        for (int64_t place = first; place < first + BLOCK; place++)
            any |= work->totals[place] >= border;
        for (int64_t place = first; any && place < first + BLOCK; place++)
            if (work->totals[place] >= border) {
                if (!keep_total(work, found, heap, lists[0].segment, place))
                    return 0;
                border = least(heap);
            }
    }
    memset(work->totals, 0, SEGMENT_SLOTS * sizeof *work->totals);
    return 1;
}

/* Some of the segments, with a border of their own. */
typedef struct {
    const Posting *lists;
    int64_t count, entries;
    Found found;
    int done;
} Part;

typedef struct {
    Part parts[PARTS];
    const uint8_t *allowed;
    int64_t slots, depth;
} Search;

INLINE void search_part(Search *all, Part *part) {
    Highest heap = {NULL, 0, all->depth < part->entries ? all->depth : part->entries};
    Work totals = {calloc(SEGMENT_SLOTS, sizeof(double)), all->allowed, all->slots};
    heap.values = malloc((size_t)(heap.size + 1) * sizeof(float));
    part->done = totals.totals && heap.values;
    for (int64_t first = 0, last; part->done && first < part->count; first = last) {
        for (last = first + 1; last < part->count && part->lists[last].segment == part->lists[first].segment;)
            last++;
        part->done = best_of_segment(&totals, part->lists + first, last - first, &part->found, &heap);
    }
    free(totals.totals);
    free(heap.values);
}

static void best_of_part(void *work, int64_t number, void *scratch) {
    Search *all = work;
    (void)scratch;
    search_part(all, all->parts + number);
}

#ifdef M3_X86
__attribute__((target("avx2"))) static void best_of_part_avx2(void *work, int64_t number, void *scratch) {
    Search *all = work;
    (void)scratch;
    search_part(all, all->parts + number);
}
#else
#define best_of_part_avx2 best_of_part
#endif

/* Cut between segments, into parts of about as many entries each. */
static int cut(Search *all, const Posting *lists, int64_t count, int most) {
    int64_t entries = 0, share;
    int parts = 0;
    for (int64_t i = 0; i < count; i++)
        entries += lists[i].count;
    most = most < PARTS ? most : PARTS;
    most = entries / ENTRIES_A_THREAD < most ? (int)(entries / ENTRIES_A_THREAD) : most;
    share = entries / (most ? most : 1) + 1;
    for (int64_t i = 0; i < count; i++) {
        Part *part = all->parts + parts;
        if (!parts || (part[-1].entries >= share && lists[i].segment != lists[i - 1].segment))
            parts++, part->lists = lists + i;
        else
            part--;
        part->count++, part->entries += lists[i].count;
    }
    return parts;
}

static int join(Search *all, int parts, Found *found) {
    int done = 1;
    for (int i = 0; i < parts; i++)
        done = done && all->parts[i].done;
    *found = all->parts[0].found;
    for (int i = 1; done && i < parts; i++) {
        const Found *other = &all->parts[i].found;
        int64_t room = found->count + other->count + 1;
        uint32_t *slots = realloc(found->slots, (size_t)room * sizeof *slots);
        found->slots = slots ? slots : found->slots;
        float *scores = realloc(found->scores, (size_t)room * sizeof *scores);
        found->scores = scores ? scores : found->scores;
        if ((done = slots && scores) && other->count) {
            memcpy(slots + found->count, other->slots, (size_t)other->count * sizeof *slots);
            memcpy(scores + found->count, other->scores, (size_t)other->count * sizeof *scores);
            found->count += other->count;
        }
    }
    for (int i = 1; i < parts; i++)
        free_found(&all->parts[i].found);
    if (!done)
        free_found(found);
    return done;
}

int best_postings(const Posting *lists, int64_t count, const uint8_t *allowed, int64_t slots, int64_t depth, int threads,
                  Found *found) {
    Search all = {.allowed = allowed, .slots = slots, .depth = depth};
    memset(found, 0, sizeof *found);
    if (!count)
        return 1;
    int parts = cut(&all, lists, count, threads);
    Job job = {best_level() >= AVX2 ? best_of_part_avx2 : best_of_part, &all, parts, 0};
    int ran = run_in_parallel(&job, parts), joined = join(&all, parts, found);
    if (!ran)
        free_found(found);
    return ran && joined;
}

void free_found(Found *found) {
    free(found->slots);
    free(found->scores);
    memset(found, 0, sizeof *found);
}
