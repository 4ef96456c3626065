/* Vectors and functions that every generated program uses.
 *
 * A `vec` is 16 float32; the compiler makes of it what the processor has: one AVX-512 register, two
 * of AVX2, four of NEON. The functions of one float are free of branches, so loops that call them
 * become vector loops. NaN and infinities go through them as IEEE 754 says.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline, unused))
#define EXPORT __attribute__((visibility("default")))
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep") /* turns of the loop do not depend on each other */
#endif
#define LANES 16

typedef float vec __attribute__((vector_size(64)));
typedef float vec_anywhere __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t bits_vec __attribute__((vector_size(64)));

INLINE vec load(const float *p) { return *(const vec_anywhere *)p; }
INLINE void store(float *p, vec v) { *(vec_anywhere *)p = v; }
INLINE vec splat(float x) { return x - (vec){0}; }

/* The first n lanes of v. */
INLINE void store_part(float *p, vec v, int n) {
    float lanes[LANES];
    store(lanes, v);
    for (int i = 0; i < n; i++) p[i] = lanes[i];
}

/* n floats, `stride` apart; the other lanes are 0. */
INLINE vec gather(const float *p, long stride, int n) {
    float lanes[LANES] = {0};
    for (int i = 0; i < n; i++) lanes[i] = p[i * stride];
    return load(lanes);
}

INLINE void scatter(float *p, long stride, vec v, int n) {
    float lanes[LANES];
    store(lanes, v);
    for (int i = 0; i < n; i++) p[i * stride] = lanes[i];
}

/* The sum of all lanes. */
INLINE float total(vec v) {
    float lanes[LANES];
    store(lanes, v);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* A place that moves with the number of a row, in a ring of `period`. */
INLINE long at(int64_t index, long period) {
    const long place = (long)(index % period);
    return place < 0 ? place + period : place;
}

INLINE int32_t bits_of(float x) {
    int32_t i;
    memcpy(&i, &x, 4);
    return i;
}

INLINE float float_of(int32_t i) {
    float x;
    memcpy(&x, &i, 4);
    return x;
}

/* NaN where one is NaN, as numpy.maximum and numpy.minimum. */
INLINE float max_(float a, float b) { return (a > b) | (a != a) ? a : b; }
INLINE float min_(float a, float b) { return (a < b) | (a != a) ? a : b; }
INLINE float sum_(float a, float b) { return a + b; }
INLINE float prod_(float a, float b) { return a * b; }

/* x = n · ln 2 + r with |r| ≤ ln 2 / 2; `shifted` is n + 1.5 · 2^23, whose low bits are n. */
#define SHIFT 12582912.0f
#define REDUCE(x, shifted, r)                     \
    const float shifted = (x) * 1.44269504f + SHIFT; \
    const float n_ = shifted - SHIFT;             \
    const float r_ = (x) - n_ * 0x1.62e400p-1f;   \
    const float r = r_ - n_ * 0x1.7f7d1cp-20f

/* (e^r − 1 − r) / r², after N. Juffa. */
INLINE float exp_tail(float r) {
    float p = 0x1.694000p-10f;
    p = p * r + 0x1.125edcp-7f;
    p = p * r + 0x1.555b5ap-5f;
    p = p * r + 0x1.555450p-3f;
    return p * r + 0x1.fffff6p-2f;
}

/* e^x = 2^n · e^r */
INLINE float exp_(float x) {
    float c = x > 89.0f ? 89.0f : x;
    c = c < -104.0f ? -104.0f : c;
    REDUCE(c, shifted, r);
    const float p = (exp_tail(r) * r + 1.0f) * r + 1.0f;
    const int32_t whole = bits_of(shifted) - 0x4b400000;
    const int32_t half = whole >> 1; /* 2^n in two steps, since 2^-150 is no float */
    return p * float_of((half + 127) * (1 << 23)) * float_of((whole - half + 127) * (1 << 23));
}

/* 1 / (1 + e^-x), from e^-|x| so that nothing overflows; below 2^-126 it is 0. */
INLINE float sigmoid_(float x) {
    const float a = -__builtin_fabsf(x), c = a < -88.0f ? -88.0f : a;
    REDUCE(c, shifted, r);
    const float p = (exp_tail(r) * r + 1.0f) * r + 1.0f;
    const float e = p * float_of((int32_t)((uint32_t)(bits_of(shifted) + 127) << 23));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/* −m / (2 + m) of m = e^-2|x| − 1, which is exact to its last digits near 0 too. */
INLINE float tanh_(float x) {
    const float a = -2.0f * __builtin_fabsf(x), c = a < -20.0f ? -20.0f : a;
    REDUCE(c, shifted, r);
    const float scale = float_of((int32_t)((uint32_t)(bits_of(shifted) + 127) << 23));
    const float q = exp_tail(r) * r * r + r;
    const float m = scale * q + (scale - 1.0f);
    return __builtin_copysignf(m / (2.0f + m), x);
}

/* Two polynomials, after N. Juffa, "A faster and more accurate implementation of erff". */
INLINE float erf_(float x) {
    const float a = __builtin_fabsf(x), s = x * x, t = a > 4.0f ? 4.0f : a, tt = t * t;
    float r = -0x1.220000p-16f * t + 0x1.91cfb2p-12f;
    const float u = -0x1.fd1438p-9f * t + 0x1.8d6342p-6f;
    r = r * tt + u;
    r = r * t - 0x1.b55cb8p-4f;
    r = r * t - 0x1.450aa0p-1f;
    r = r * t - 0x1.079d0cp-3f;
    r = r * t - t;
    const float far = __builtin_copysignf(1.0f - exp_(r), x);
    float p = -0x1.38e000p-11f;
    p = p * s + 0x1.471a58p-8f;
    p = p * s - 0x1.b691b2p-6f;
    p = p * s + 0x1.ce1c44p-4f;
    p = p * s - 0x1.812700p-2f;
    p = p * s + 0x1.06eba8p-3f;
    return a > 0.927734375f ? far : p * x + x;
}

/* log: of the mantissa in [2/3, 4/3), after N. Juffa; error below 1 ulp. */
INLINE float log_(float x) {
    const int tiny = x < 0x1p-126f;
    const float a = tiny ? x * 0x1p23f : x;
    const int32_t e = (bits_of(a) - 0x3f2aaaab) & (int32_t)0xff800000;
    const float m = float_of(bits_of(a) - e) - 1.0f, s = m * m;
    const float i = (float)e * 0x1p-23f + (tiny ? -23.0f : 0.0f);
    float r = -0x1.0ae000p-3f, t = 0x1.208000p-3f;
    r = r * s - 0x1.f198b2p-4f;
    t = t * s + 0x1.1e5740p-3f;
    r = r * s - 0x1.55b36cp-3f;
    t = t * s + 0x1.99d8b2p-3f;
    r = r * s - 0x1.fffe02p-3f;
    r = t * m + r;
    r = r * m + 0x1.5554fap-2f;
    r = r * m - 0.5f;
    r = r * s + m;
    r = i * 0x1.62e430p-1f + r;
    r = x == INFINITY ? x : r;
    r = x == 0.0f ? -INFINITY : r;
    return x < 0.0f ? NAN : (x != x ? x : r);
}
