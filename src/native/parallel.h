/* Work cut into numbered pieces, done by some threads that end with the call: nothing to shut down, safe to fork. */
#ifndef M3_PARALLEL_H
#define M3_PARALLEL_H

#include <stdint.h>

typedef struct {
    void (*piece)(void *work, int64_t number, void *scratch);
    void *work;
    int64_t pieces;
    int64_t scratch_bytes; /* for each thread */
} Job;

#define MACS_A_THREAD 2e6 /* multiplications that are worth a thread of their own: about 20 microseconds */

/* How many of the threads some work is worth, at least 1. */
static inline int threads_worth(double macs, int threads) {
    double most = macs / MACS_A_THREAD;
    return most < 1 ? 1 : most < threads ? (int)most : threads;
}

/* 0 when memory runs out. */
int run_in_parallel(const Job *job, int threads);

#endif
