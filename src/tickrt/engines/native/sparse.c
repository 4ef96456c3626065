/* Vectors of which most terms are zero: which are not. Used where a product is cut short. */
#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* |x| of every lane. */
INLINE vec magnitude(vec v) { return (vec)((bits_vec)v & 0x7fffffffu); }

/* Of the 16 numbers from x on: their places (first, first + 1, …) and values, those that are not
 * zero, one behind the other at `which` and `value`; how many. All 16 places are written. */
INLINE long keep_16(vec x, int32_t first, int32_t *which, float *value) {
#ifdef __AVX512F__
    const __mmask16 kept = _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512i places = _mm512_add_epi32(
        _mm512_set1_epi32(first),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_storeu_si512(which, _mm512_maskz_compress_epi32(kept, places));
    _mm512_storeu_ps(value, _mm512_maskz_compress_ps(kept, (__m512)x));
    return __builtin_popcount(kept);
#else
    float lanes[LANES];
    long count = 0;
    store(lanes, x);
    for (int i = 0; i < LANES; i++) {
        which[count] = first + i;
        value[count] = lanes[i];
        count += lanes[i] != 0.0f;
    }
    return count;
#endif
}

/* How many of n numbers are not zero: which, and their values. There is room for n + 16. */
INLINE long not_zero(const float *x, long n, int32_t *which, float *value) {
    const long whole = n / LANES * LANES;
    long count = 0;
    for (long k = 0; k < whole; k += LANES)
        count += keep_16(load(x + k), (int32_t)k, which + count, value + count);
    if (whole < n)
        count += keep_16(gather(x + whole, 1, n - whole), whole, which + count, value + count);
    return count;
}

/* How many of n numbers are not what they were: which, and by how much. There is room for n + 16.
 *
 * More than n where that is no good base: something is not finite, or what was there before is
 * larger by far, so that its rounding errors would be. */
INLINE long changed(const float *now, const float *before, long n, int32_t *which, float *by) {
    const long whole = n / LANES * LANES;
    const vec last_now = gather(now + whole, 1, n - whole);
    const vec last_before = gather(before + whole, 1, n - whole);
    vec is = magnitude(last_now), was = magnitude(last_before);
    long count = 0;
    for (long k = 0; k < whole; k += LANES) {
        const vec x = load(now + k), old = load(before + k);
        is += magnitude(x), was += magnitude(old);
        count += keep_16(x - old, (int32_t)k, which + count, by + count);
    }
    count += keep_16(last_now - last_before, (int32_t)whole, which + count, by + count);
    const float size = total(is), old_size = total(was);
    return old_size <= 2.0f * size && size < INFINITY ? count : n + 1;
}
