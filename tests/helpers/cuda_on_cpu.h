// As much of CUDA as a resident kernel uses, on one CPU thread: every GPU thread is a coroutine.
//
// The order in which threads run is drawn by chance, anew each time, from the barriers alone; what
// one block sends to another arrives some time later, in any order. So a kernel that lacks a barrier
// gives wrong answers here, for some seed. A kernel whose threads wait for one another for ever ends
// with a line that says where.
//
// Included in place of the functions of `resident.cuh` that are written in PTX.
#include <ucontext.h>
#include <math.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __global__
#define __cluster_dims__(...)
#define __launch_bounds__(...)

struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(8) uint2 { unsigned x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <class To, class From> To same_bits(From from) {
  To to;
  static_assert(sizeof to == sizeof from, "");
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline float __int_as_float(int v) { return same_bits<float>(v); }
inline unsigned __float_as_uint(float v) { return same_bits<unsigned>(v); }
inline float __fdividef(float a, float b) { return a / b; }
template <class T> T __ldg(const T *at) { return *at; }
using std::fabs; using std::max; using std::min;
inline unsigned max(unsigned a, unsigned b) { return std::max(a, b); }

namespace gpu {

const int WARP = 32, MAX_STAGES = 256;
const unsigned ARRIVALS = 0x100000, HEAD_AT = 0x200000, RANK_SHIFT = 24, OFFSET = 0xffffff;

struct Barrier { int waiting = 0; long turn = 0; };
struct Arrival { int pending = 0; long bytes = 0; unsigned phase = 0; };  // an mbarrier of count 1
struct Sent { unsigned to; std::vector<unsigned> words; unsigned barrier; };

struct Block {
  std::vector<float> shared;
  uint4 head;
  std::vector<Arrival> arrivals = std::vector<Arrival>(MAX_STAGES);
  Barrier all;
  std::map<std::pair<int, unsigned>, Barrier> warps;  // by warp and mask
  std::vector<unsigned> shuffled;
  std::map<int, std::vector<unsigned>> shared_words;  // by warp
  int votes = 0;
};

struct Thread {
  ucontext_t context;
  int rank, tid;
  const Barrier *at = nullptr;  // what it waits for
  long turn = 0;
  bool ended = false;
  const char *what = "";
};

struct Machine {
  std::vector<Block> blocks;
  std::vector<Thread> threads;
  std::vector<Sent> in_flight;
  Barrier cluster;
  int alive = 0, per_block = 0;
  Thread *now = nullptr;
  ucontext_t scheduler;
  std::mt19937 chance;
  std::function<void()> body;
  bool trapped = false;
};
inline Machine &machine() { static Machine m; return m; }
inline Block &block() { return machine().blocks[machine().now->rank]; }

inline void yield() { swapcontext(&machine().now->context, &machine().scheduler); }
inline void meet(Barrier &barrier, int count, const char *what) {
  Thread &me = *machine().now;
  me.turn = barrier.turn;
  if (++barrier.waiting >= count) { barrier.waiting = 0; barrier.turn++; }
  me.at = &barrier; me.what = what;
  yield();
  me.at = nullptr;
}
inline void meet_warp(unsigned mask) {
  const int warp = machine().now->tid / WARP;
  meet(block().warps[{warp, mask}], __builtin_popcount(mask), "lanes of a warp");
}
inline unsigned shuffle(unsigned mask, unsigned value, int from) {
  const int tid = machine().now->tid, lane = tid % WARP;
  unsigned *slots = &block().shuffled[tid / WARP * WARP];
  slots[lane] = value;
  meet_warp(mask);
  const unsigned found = slots[from % WARP];
  meet_warp(mask);
  return found;
}

// Every lane's `count` words for all lanes: all[number][lane].
inline void share_words(const unsigned *mine, int count, unsigned *all) {
  const int tid = machine().now->tid, lane = tid % WARP;
  std::vector<unsigned> &slots = block().shared_words[tid / WARP];
  slots.resize(count * WARP);
  for (int i = 0; i < count; i++) slots[i * WARP + lane] = mine[i];
  meet_warp(0xffffffffu);
  std::copy(slots.begin(), slots.end(), all);
  meet_warp(0xffffffffu);
}

inline unsigned *shared_word(unsigned address) {
  Block &b = machine().blocks.at(address >> RANK_SHIFT);
  const unsigned offset = address & OFFSET;
  if (offset >= HEAD_AT) return reinterpret_cast<unsigned *>(&b.head) + (offset - HEAD_AT) / 4;
  return reinterpret_cast<unsigned *>(&b.shared.at(offset / 4));
}
inline Arrival &arrival_at(unsigned address) {
  const unsigned offset = address & OFFSET;
  return machine().blocks.at(address >> RANK_SHIFT).arrivals.at((offset - ARRIVALS) / 8);
}
inline void settle(Arrival &a) {
  if (a.pending == 0 && a.bytes == 0) { a.phase ^= 1; a.pending = 1; }
}
inline void deliver(bool all) {
  Machine &m = machine();
  std::shuffle(m.in_flight.begin(), m.in_flight.end(), m.chance);
  size_t count = all ? m.in_flight.size() : m.chance() % (m.in_flight.size() + 1);
  for (; count; count--) {
    Sent sent = m.in_flight.back();
    m.in_flight.pop_back();
    unsigned *to = shared_word(sent.to);
    for (size_t i = 0; i < sent.words.size(); i++) to[i] = sent.words[i];
    Arrival &a = arrival_at(sent.barrier);
    a.bytes -= 4 * (long)sent.words.size();
    settle(a);
  }
}

// A barrier of the cluster counts those that have not ended.
inline void leave() {
  Machine &m = machine();
  m.now->ended = true;
  m.alive--;
  if (m.cluster.waiting && m.cluster.waiting >= m.alive) { m.cluster.waiting = 0; m.cluster.turn++; }
  yield();
}

inline void enter() {
  machine().body();
  leave();
}

// Run the kernel until every thread has ended; `host` is called between. 0, or 1: nobody can go on;
// 2: a thread trapped.
inline int run(int blocks, int per_block, size_t shared_bytes, unsigned seed,
               std::function<void()> body, std::function<void()> host) {
  Machine &m = machine();
  const size_t stack = 1 << 17;
  char *stacks = (char *)mmap(nullptr, stack * blocks * per_block, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  m.blocks = std::vector<Block>(blocks);
  for (Block &b : m.blocks) {
    b.shared.assign(shared_bytes / 4, __int_as_float(0x7fc12345));  // nobody reads what is unset
    b.shuffled.resize(per_block);
  }
  m.threads = std::vector<Thread>(blocks * per_block);
  m.in_flight.clear();
  m.cluster = Barrier();
  m.per_block = per_block; m.alive = blocks * per_block;
  m.chance.seed(seed);
  m.body = body;
  std::vector<int> order;
  for (int i = 0; i < m.alive; i++) {
    Thread &t = m.threads[i];
    t.rank = i / per_block; t.tid = i % per_block;
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = stacks + stack * i;
    t.context.uc_stack.ss_size = stack;
    t.context.uc_link = nullptr;
    makecontext(&t.context, enter, 0);
    order.push_back(i);
  }
  // Now and then a block or a warp stands still for a while; when nobody else can go on, it does.
  int idle = 0, held_block = -1, held_warp = -1, held_for = 0;
  while (m.alive && !m.trapped) {
    if (--held_for < 0) {
      held_for = m.chance() % 20;
      held_block = m.chance() % 2 ? m.chance() % blocks : -1;
      held_warp = m.chance() % 2 ? m.chance() % (order.size() / WARP) : -1;
    }
    std::shuffle(order.begin(), order.end(), m.chance);
    bool moved = false;
    for (int i : order) {
      Thread &t = m.threads[i];
      if (t.ended || (t.at && t.at->turn == t.turn)) continue;
      if (t.rank == held_block || i / WARP == held_warp) continue;
      m.now = &t;
      moved = true;
      swapcontext(&m.scheduler, &t.context);
    }
    if (!moved) { held_block = held_warp = -1; held_for = 2; }
    deliver(!moved);
    host();
    idle = moved ? 0 : idle + 1;
    if (idle > 3) {
      std::map<std::pair<int, std::string>, std::pair<int, int>> waiting;  // how many, the first
      for (Thread &t : m.threads)
        if (!t.ended && !waiting[{t.rank, t.what}].first++) waiting[{t.rank, t.what}].second = t.tid;
      for (auto &w : waiting)
        std::fprintf(stderr, "block %d: %d threads from %d on wait for %s\n", w.first.first,
                     w.second.first, w.second.second, w.first.second.c_str());
      break;
    }
  }
  munmap(stacks, stack * blocks * per_block);
  return m.trapped ? 2 : m.alive != 0;
}
}  // namespace gpu

struct Index { struct X { operator int() const { return gpu::machine().now->tid; } } x; };
struct Size { struct X { operator int() const { return gpu::machine().per_block; } } x; };
static const Index threadIdx;
static const Size blockDim;

inline void __syncthreads() { gpu::meet(gpu::block().all, gpu::machine().per_block, "__syncthreads"); }
inline int __syncthreads_or(int mine) {
  int &votes = gpu::block().votes;
  votes |= mine != 0;
  __syncthreads();
  const int found = votes;
  __syncthreads();
  votes = 0;
  __syncthreads();
  return found;
}
inline void __trap() {
  std::fprintf(stderr, "block %d traps\n", gpu::machine().now->rank);
  gpu::machine().trapped = true;
  gpu::leave();
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { gpu::meet_warp(mask); }
inline float __shfl_xor_sync(unsigned mask, float v, int step) {
  const int from = gpu::machine().now->tid % gpu::WARP ^ step;
  return same_bits<float>(gpu::shuffle(mask, same_bits<unsigned>(v), from));
}
inline float __shfl_sync(unsigned mask, float v, int from) {
  return same_bits<float>(gpu::shuffle(mask, same_bits<unsigned>(v), from));
}

// What `resident.cuh` writes in PTX.
typedef unsigned int word;
inline float sigmoid_of(float x) { return 1.0f / (1.0f + expf(-x)); }
inline float exp_of(float x) { return expf(x); }
inline uint4 load_system(const void *at) {
  gpu::yield();
  return *static_cast<const uint4 *>(at);
}
inline void store_system(void *at, uint4 v) { *static_cast<uint4 *>(at) = v; }
inline int anew(int value) { return value; }
inline word block_rank() { return gpu::machine().now->rank; }
inline word shared_address(const void *at) {
  gpu::Block &b = gpu::block();
  const word rank = block_rank() << gpu::RANK_SHIFT;
  if (at == &b.head) return rank | gpu::HEAD_AT;
  const char *p = static_cast<const char *>(at), *base = (const char *)b.arrivals.data();
  if (p >= base && p < base + 8 * gpu::MAX_STAGES) return rank | (gpu::ARRIVALS + (word)(p - base));
  return rank | (word)(p - (const char *)b.shared.data());
}
inline word in_block(word address, word rank) {
  return (address & gpu::OFFSET) | rank << gpu::RANK_SHIFT;
}
inline void cluster_sync() {
  gpu::Machine &m = gpu::machine();
  gpu::meet(m.cluster, m.alive, "the cluster");
}
inline void cluster_meet() { cluster_sync(); }
inline void arrival_init(word barrier) { gpu::arrival_at(barrier) = gpu::Arrival{1, 0, 0}; }
inline void arrival_expect(word barrier, word bytes) {
  gpu::Arrival &a = gpu::arrival_at(barrier);
  a.bytes += bytes; a.pending--;
  gpu::settle(a);
}
inline bool arrived(word barrier, word parity) {
  gpu::yield();
  return gpu::arrival_at(barrier).phase != parity;
}
inline void send(word address, float value, word barrier) {
  gpu::machine().in_flight.push_back({address, {same_bits<unsigned>(value)}, barrier});
}
inline void send_piece(word address, uint4 v, word barrier) {
  gpu::machine().in_flight.push_back({address, {v.x, v.y, v.z, v.w}, barrier});
}

// The matrix unit: each lane's factors are passed to all lanes.
inline float half_to_float(unsigned h) {
  const int exponent = h >> 10 & 31, digits = h & 1023;
  const float size = exponent == 31  ? (digits ? NAN : INFINITY)
                     : exponent == 0 ? std::ldexp((float)digits, -24)
                                     : std::ldexp((float)(digits + 1024), exponent - 25);
  return h >> 15 ? -size : size;
}
inline unsigned float_to_half(float x) {
  const unsigned sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return sign | 0x7e00;
  x = std::fabs(x);
  if (x >= 65520.0f) return sign | 0x7c00;
  int exponent;
  std::frexp(x, &exponent);
  exponent = std::max(exponent - 1, -14);
  const int digits = (int)std::rint(std::ldexp(x, 10 - exponent));
  return digits ? sign | (unsigned)(digits + (exponent + 14) * 1024) : sign;
}
inline uint2 halves_of(float x, float y) {
  const unsigned a = float_to_half(x), b = float_to_half(y);
  const unsigned c = float_to_half((x - half_to_float(a)) * 2048.0f);
  const unsigned d = float_to_half((y - half_to_float(b)) * 2048.0f);
  return {a | b << 16, c | d << 16};
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  unsigned all[gpu::WARP];
  gpu::share_words(&value, 1, all);
  return *std::max_element(all, all + gpu::WARP);
}
inline void multiply(float (&total)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const int lane = gpu::machine().now->tid % gpu::WARP;
  const unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  unsigned all[6][gpu::WARP];
  gpu::share_words(mine, 6, &all[0][0]);
  for (int c = 0; c < 4; c++) {
    const int row = lane / 4 + c / 2 * 8, column = lane % 4 * 2 + c % 2;
    for (int k = 0; k < 16; k++) {
      const int shift = 16 * (k % 2), pair = k % 8 / 2;
      const unsigned left = all[(row >= 8) + 2 * (k >= 8)][row % 8 * 4 + pair];
      const unsigned right = all[4 + (k >= 8)][column * 4 + pair];
      total[c] += half_to_float(left >> shift & 0xffff) * half_to_float(right >> shift & 0xffff);
    }
  }
}
