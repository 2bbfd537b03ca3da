/* Sparse retrieval, term at a time: posting lists of segments of slots in, the best slots out. Free of Python. */
#ifndef M3_POSTINGS_H
#define M3_POSTINGS_H

#include <stdint.h>

#define SEGMENT_SLOTS 32768 /* the Python side says the same: slots in a segment */

typedef struct {
    const char *bytes; /* count places in the segment, uint16, then count weights, float; perhaps unaligned */
    int64_t count;
    int64_t segment;
    double weight; /* of the term in the query */
} Posting;

typedef struct {
    uint32_t *slots;
    float *scores;
    int64_t count, room;
} Found;

/* The lists are ordered by segment, and by term within one: sums are taken in that order, in double precision.
   `found` gets at least the `depth` slots of highest positive score and every slot that ties with the last of them.
   `allowed`, a byte for each of `slots` slots, may be NULL. Gives 0 when memory runs out; free what was found. */
int best_postings(const Posting *lists, int64_t count, const uint8_t *allowed, int64_t slots, int64_t depth, int threads,
                  Found *found);
void free_found(Found *found);

#endif
