#include "parallel.h"

#include <stdlib.h>

#define MOST_THREADS 64

typedef struct {
    const Job *job;
    int64_t next;
    int failed;
} Shared;

#ifdef _WIN32

int run_in_parallel(const Job *job, int threads) {
    void *scratch = malloc((size_t)job->scratch_bytes + 1);
    (void)threads;
    if (!scratch)
        return 0;
    for (int64_t number = 0; number < job->pieces; number++)
        job->piece(job->work, number, scratch);
    free(scratch);
    return 1;
}

#else

#include <pthread.h>

static void *work_on(void *argument) {
    Shared *shared = argument;
    void *scratch = NULL;
    if (posix_memalign(&scratch, 64, (size_t)shared->job->scratch_bytes + 64)) {
        __atomic_store_n(&shared->failed, 1, __ATOMIC_RELAXED);
        return NULL;
    }
    int64_t number;
    while ((number = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED)) < shared->job->pieces)
        shared->job->piece(shared->job->work, number, scratch);
    free(scratch);
    return NULL;
}

int run_in_parallel(const Job *job, int threads) {
    Shared shared = {job, 0, 0};
    pthread_t others[MOST_THREADS];
    int started = 0;
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    while (started + 1 < threads && started + 1 < job->pieces && !pthread_create(&others[started], NULL, work_on, &shared))
        started++;
    work_on(&shared);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    return !shared.failed;
}

#endif
