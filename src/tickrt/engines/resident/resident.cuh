// What every resident kernel is made with: the mailbox, the exchange between blocks, the functions.
//
// A row is stored by the loop straight into a slot of the mailbox. The data is the flag: a slot is
// full of EMPTY, a NaN that no row has, until each of its words is there; the kernel puts EMPTY back
// after it has read it. An answer goes to host memory in pieces of sixteen bytes, three outputs and
// the number of the row that they belong to, so that a piece is whole or not there.

#undef INFINITY
#undef NAN
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)

typedef unsigned int word;
const word EMPTY = 0xffffffffu;
// What to do with a row: bits of its kind. And of an answer's number: there is none.
const word ANSWER = 1, RESET = 2, REFUSED = 0x40000000u;

struct Arguments {
  uint4 *rows;              // the mailbox: slots of slot_pieces pieces
  uint4 *answers;           // host memory: slots of answer_pieces pieces
  const volatile word *stop;
  volatile unsigned long long *taken;  // rows that were read
  float *far;               // global memory of the program
  const float *starts;      // what it holds after a reset
  const float *constants;
  const float *weights;     // of the stages, in the order in which threads load them
  word *profile;            // cycles, in a build for that
  word mask, slot_pieces, answer_pieces, head_piece, row_piece, padding;
};

// Where a tick's time goes: cycles of the first thread, in a build for that.
#ifdef PROFILE
#define MARK(i) do { if (rank == 0 && tid == 0) marks[i] = clock(); } while (0)
#else
#define MARK(i)
#endif

// A NaN goes through, as in NumPy.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }
__device__ __forceinline__ float smaller(float a, float b) { return a < b || a != a ? a : b; }

// 1 / (1 + 2^(−x·log2 e)): within 3 units in the last place of what expf and a division give.
__device__ __forceinline__ float sigmoid_of(float x) {
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-1.44269504f * x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
  return inverse;
}
// 2^(x·log2 e), with what rounding takes from the exponent put back: within 2 units in the last place.
__device__ __forceinline__ float exp_of(float x) {
  float power;
  const float exponent = x * 1.44269504f;
  const float rest = fmaf(x, 1.92596299e-8f, fmaf(x, 1.44269504f, -exponent));
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  return power > 0.0f && power < INFINITY ? fmaf(power, rest * 0.693147181f, power) : power;
}
__device__ __forceinline__ float tanh_of(float x) {
  // Near zero 2·sigmoid(2x) − 1 loses digits: there the series.
  const float square = x * x;
  const float series = x * fmaf(square, fmaf(square, fmaf(square, -0.05396825f, 0.13333333f), -0.33333333f), 1.0f);
  const float bent = fmaf(2.0f, sigmoid_of(2.0f * x), -1.0f);
  return square < 0.02f ? series : bent;
}

__device__ __forceinline__ uint4 load_system(const void *at) {
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at) : "memory");
  return v;
}
__device__ __forceinline__ void store_system(void *at, uint4 v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1,%2,%3,%4};"
               :: "l"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
__device__ __forceinline__ bool is_empty(uint4 v) {
  return max(max(v.x, v.y), max(v.z, v.w)) == EMPTY;
}

// What follows from a thread's number is computed anew where it is used: kept from row to row, it
// would push the weights out of the registers.
__device__ __forceinline__ int anew(int value) {
  asm volatile("mov.u32 %0, %0;" : "+r"(value));
  return value;
}
#define ANEW \
  [[maybe_unused]] const int tid = anew(threadIdx.x), warp = tid / 32, lane = tid % 32; \
  [[maybe_unused]] const word rank = anew(block_rank()); \
  [[maybe_unused]] const int everyone = rank * blockDim.x + tid

__device__ __forceinline__ word shared_address(const void *at) {
  return static_cast<word>(__cvta_generic_to_shared(at));
}
__device__ __forceinline__ word in_block(word address, word block) {
  word there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(block));
  return there;
}
__device__ __forceinline__ word block_rank() {
  word rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The same for blocks that have nothing to show one another: no memory is waited for.
__device__ __forceinline__ void cluster_meet() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\n barrier.cluster.wait.aligned;" ::: "memory");
}

// An arrival: a barrier in shared memory that counts the bytes which other blocks send.
__device__ __forceinline__ void arrival_init(word barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(barrier) : "memory");
}
__device__ __forceinline__ void arrival_expect(word barrier, word bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ bool arrived(word barrier, word parity) {
  word done;
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
  return done;
}
__device__ __forceinline__ void arrival_wait(word barrier, word parity) {
  for (word spins = 0; !arrived(barrier, parity); spins++)
    if (spins > 1000000u) __trap();  // a block that is gone must not leave one that waits
}
// Wait for a row that the first block sends; false when it is time to stop.
__device__ __forceinline__ bool row_wait(word barrier, word parity, const volatile word *stop) {
  for (word spins = 1; !arrived(barrier, parity); spins++)
    if (spins % 2048 == 0 && *stop != 0) return false;
  return true;
}
__device__ __forceinline__ void send(word address, float value, word barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];"
               :: "r"(address), "r"(__float_as_uint(value)), "r"(barrier) : "memory");
}
__device__ __forceinline__ void send_piece(word address, uint4 v, word barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1,%2,%3,%4}, [%5];"
               :: "r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier) : "memory");
}

// A tile of a product on the matrix unit: total[16][8] += a[16][16] · b[16][8], in the layout of
// mma.m16n8k16 (PTX ISA), two numbers of 11 binary digits in a word.
__device__ __forceinline__ void multiply(float (&total)[4], const word (&a)[4], word b0, word b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(total[0]), "+f"(total[1]), "+f"(total[2]), "+f"(total[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Two floats below 2 in size, each in two parts: the first 11 digits of both, and 2048 times the rest.
__device__ __forceinline__ uint2 halves_of(float x, float y) {
  word high, low;
  float a, b;
  asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(high) : "f"(x), "f"(y));
  asm("{ .reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }" : "=f"(a), "=f"(b) : "r"(high));
  asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(low) : "f"((x - a) * 2048.0f), "f"((y - b) * 2048.0f));
  return make_uint2(high, low);
}
const float REST = 1.0f / 2048.0f;
// The exponent's bits of the largest of a warp's numbers; of those that are finite.
__device__ __forceinline__ word largest_exponent(float4 v) {
  word most = 0;
  const float parts[4] = {v.x, v.y, v.z, v.w};
  #pragma unroll
  for (int i = 0; i < 4; i++) {
    const word size = __float_as_uint(parts[i]) & 0x7f800000u;
    most = max(most, size == 0x7f800000u ? 0u : size);
  }
  return __reduce_max_sync(0xffffffffu, most);
}
// 2^-e and 2^e for such an exponent: a factor that brings a number below 2, and its inverse.
__device__ __forceinline__ float2 scales_of(word exponent) {
  const word kept = min(max(exponent >> 23, 1u), 253u);
  return make_float2(__int_as_float((254 - kept) << 23), __int_as_float(kept << 23));
}
