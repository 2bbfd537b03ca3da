#include "maxsim.h"
#include "parallel.h"
#include "products.h"

#include <string.h>

#define CHUNKS 2 /* in a piece of work */

typedef struct {
    const Rows *chunks;
    int64_t count;
    const int64_t *bounds, *wanted;
    const Codes *query;
    float *out;
    int level;
    int32_t coarse_lift, fine_lift;
} Scanning;

static float product(const Scanning *all, const Rows *chunk, int64_t row) {
    const Codes *query = all->query;
    const int8_t *codes = chunk->codes + row * query->dim;
    float scale;
    memcpy(&scale, chunk->scales + 4 * row, 4);
    int32_t coarse = dot(codes, query->codes, query->dim, all->coarse_lift, all->level);
    int32_t fine = dot(codes, query->codes + query->dim, query->dim, all->fine_lift, all->level);
    return ((float)coarse * query->coarse[0] + (float)fine * query->fine[0]) * scale;
}

static void scan_piece(void *work, int64_t number, void *scratch) {
    const Scanning *all = work;
    int64_t last = (number + 1) * CHUNKS < all->count ? (number + 1) * CHUNKS : all->count;
    (void)scratch;
    for (int64_t chunk = number * CHUNKS; chunk < last; chunk++)
        for (int64_t i = all->bounds[chunk]; i < all->bounds[chunk + 1]; i++)
            all->out[i] = product(all, all->chunks + chunk, all->wanted[i]);
}

int scan_rows(const Rows *chunks, int64_t count, const int64_t *bounds, const int64_t *wanted, const Codes *query, float *out,
              int threads, int level) {
    Scanning all = {chunks, count, bounds, wanted, query, out, level, lift_of(query->codes, query->dim),
                    lift_of(query->codes + query->dim, query->dim)};
    Job job = {scan_piece, &all, (count + CHUNKS - 1) / CHUNKS, 0};
    return run_in_parallel(&job, threads_worth(2.0 * (double)(bounds[count] - bounds[0]) * (double)query->dim, threads));
}
