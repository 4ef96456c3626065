/* The engine handle: what the loop calls. Addresses are int64; nothing here allocates or waits.
 *
 * States are ready for the row after PREPARED. `submit` of a row whose states are not ready builds
 * them anew first, from the rows before it in the ring, and counts that in WAITS.
 */
enum { STAMP, ROWS, MEMORY, OUTPUT, COUNT, LAST, PREPARED, WAITS };

#define NONE INT64_MIN

INLINE float *memory(const int64_t *ctx) { return (float *)(intptr_t)ctx[MEMORY]; }
INLINE const float *ring(const int64_t *ctx) { return (const float *)(intptr_t)ctx[ROWS]; }

/* Every state as it is at the start. */
static void forget(int64_t *ctx) {
    float *m = memory(ctx);
    memcpy(m + STATES, m + STARTS, 4L * STATES_SIZE);
    ctx[COUNT] = 0;
    ctx[PREPARED] = HAS_STATES ? NONE : INT64_MAX;
}

/* Row `seq` is the count-th since the start: bring the states on. */
static void move_on(int64_t *ctx, int64_t seq, int64_t count) {
    if (count <= IDLE) return;
    if (HAS_FIRST && count == WARM)
        first(ring(ctx), memory(ctx), seq);
    else
        advance(ring(ctx), memory(ctx), seq);
}

/* States for the row after `seq`, from the WARM rows up to it. */
static void build_up(int64_t *ctx, int64_t seq) {
    forget(ctx);
    for (int64_t count = IDLE + 1; count <= WARM; count++) move_on(ctx, seq - WARM + count, count);
    ctx[COUNT] = WARM;
    ctx[LAST] = ctx[PREPARED] = seq;
}

EXPORT int64_t tickrt_reset(int64_t *ctx) {
    forget(ctx);
    return CODE_OK;
}

EXPORT int64_t tickrt_submit(int64_t *ctx, int64_t seq, int64_t n) {
    (void)n;
    if (HAS_STATES && ctx[PREPARED] != seq - 1) {
        ctx[WAITS]++;
        build_up(ctx, seq - 1);
    }
    step(ring(ctx), memory(ctx), seq);
    memcpy((float *)(intptr_t)ctx[OUTPUT], memory(ctx) + OUTPUTS, 4L * OUTPUTS_SIZE);
    __atomic_store_n((int64_t *)(intptr_t)ctx[STAMP], seq, __ATOMIC_RELEASE);
    return CODE_OK;
}

EXPORT int64_t tickrt_poll(int64_t *ctx, int64_t seq) {
    const int64_t stamp = __atomic_load_n((int64_t *)(intptr_t)ctx[STAMP], __ATOMIC_ACQUIRE);
    return stamp == seq ? CODE_OK : stamp < seq ? CODE_PENDING : CODE_STALE;
}

/* Then the next row's `step`, on the row that it will overwrite: its weights, its instructions and
 * its branches are known to the processor when it comes. A step changes nothing that lasts. */
EXPORT int64_t tickrt_advance(int64_t *ctx, int64_t seq) {
    if (HAS_STATES) {
        if (ctx[COUNT] > 0 && ctx[LAST] != seq - 1) forget(ctx); /* a row is missing */
        ctx[LAST] = seq;
        ctx[COUNT]++;
        move_on(ctx, seq, ctx[COUNT]);
        if (ctx[COUNT] < WARM) return CODE_OK;
        ctx[PREPARED] = seq;
    }
    step(ring(ctx), memory(ctx), seq + 1);
    return CODE_OK;
}
