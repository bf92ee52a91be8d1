// The work per pixel of stain normalisation on a GPU, with the bits of the other engines.
//
// Every value that is kept comes from separate IEEE operations (compile with --fmad=false), from integer sums, or from
// selection; so neither the number of threads nor their order can show. A block works on one set of pixels (a patch),
// in strides of its threads, and is right with any number of them, one included.
//
// Nothing is included, so that NVRTC needs no header. `tests/cuda_on_cpu.cpp` lets a C++ compiler build the same text.

typedef unsigned char u8;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

// ---------------------------------------------------------------------------------------------------------- moments

const i64 NOT_KEPT = (i64)(1ull << 63);
const int SUMS = 10;  // r g b, rr rg rb gg gb bb, n
const int COPIES = 16;  // of the totals, so that threads seldom wait for each other

// Sums and products of optical densities of the kept pixels: one block per row of `row_pixels` pixels of a set.
// densities: 256 entries, fixed point, or NOT_KEPT. sums: (sets, rows, 10).
extern "C" __global__ void moments(const u8* pixels, int pixels_per_set, int row_pixels, const i64* densities,
                                   i64* sums) {
  __shared__ i64 table[256];
  __shared__ i64 totals[COPIES][SUMS];
  for (int level = threadIdx.x; level < 256; level += blockDim.x) table[level] = densities[level];
  for (int k = threadIdx.x; k < COPIES * SUMS; k += blockDim.x) totals[k / SUMS][k % SUMS] = 0;
  __syncthreads();
  const u8* set = pixels + 3 * (i64)pixels_per_set * blockIdx.y;
  const int first = blockIdx.x * row_pixels;
  const int last = first + row_pixels < pixels_per_set ? first + row_pixels : pixels_per_set;
  i64 own[SUMS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (int i = first + threadIdx.x; i < last; i += blockDim.x) {
    const i64 r = table[set[3 * (i64)i]], g = table[set[3 * (i64)i + 1]], b = table[set[3 * (i64)i + 2]];
    if (r == NOT_KEPT || g == NOT_KEPT || b == NOT_KEPT) continue;
    own[0] += r;
    own[1] += g;
    own[2] += b;
    own[3] += r * r;
    own[4] += r * g;
    own[5] += r * b;
    own[6] += g * g;
    own[7] += g * b;
    own[8] += b * b;
    own[9] += 1;
  }
  // Two's complement: signed sums are added as unsigned ones, in any order.
  for (int k = 0; k < SUMS; ++k) atomicAdd((u64*)&totals[threadIdx.x % COPIES][k], (u64)own[k]);
  __syncthreads();
  for (int k = threadIdx.x; k < SUMS; k += blockDim.x) {
    i64 sum = 0;
    for (int copy = 0; copy < COPIES; ++copy) sum += totals[copy][k];
    sums[SUMS * ((i64)blockIdx.y * gridDim.x + blockIdx.x) + k] = sum;
  }
}

// -------------------------------------------------------------------------------------------------- order statistics

const int BINS_LOG2 = 11;
const int BINS = 1 << BINS_LOG2;
const int LISTED = 1024;  // as many keys fit in the place of the bins
const int SEGMENT = 32;

// Integers that are ordered as the numbers are; −0 comes just before 0.
__device__ inline u64 key_of(double value) {
  const i64 bits = __double_as_longlong(value);
  return (u64)bits ^ (bits < 0 ? ~0ull : 1ull << 63);
}

__device__ inline double value_of(u64 key) {
  const u64 bits = key >> 63 ? key ^ (1ull << 63) : ~key;
  return __longlong_as_double((i64)bits) + 0.0;
}

// OD · axis for two axes, added in channel order: a look-up per channel, since OD has 256 values.
struct Projection {
  double products[2][3][256];

  __device__ void fill(const double* od, const double* axes) {
    for (int entry = threadIdx.x; entry < 6 * 256; entry += blockDim.x) {
      const int axis = entry / 768, channel = entry / 256 % 3, level = entry % 256;
      products[axis][channel][level] = od[level] * axes[3 * axis + channel];
    }
  }

  __device__ double at(int axis, const u8* pixel) const {
    return products[axis][0][pixel[0]] + products[axis][1][pixel[1]] + products[axis][2][pixel[2]];
  }
};

// Pseudo-angles of the kept pixels, twice: two ranks of the same values are asked for.
struct Angles {
  int brightest;

  __device__ bool keys(const Projection& projection, const u8* pixel, u64* result) const {
    if (pixel[0] > brightest || pixel[1] > brightest || pixel[2] > brightest) return false;
    const double x = projection.at(0, pixel);
    const double y = projection.at(1, pixel) + 0.0;
    const double length = (x < 0.0 ? -x : x) + (y < 0.0 ? -y : y);
    double angle = y / (length == 0.0 ? 1.0 : length);
    if (x < 0.0) angle = (y < 0.0 ? -2.0 : 2.0) - angle;
    result[0] = result[1] = key_of(angle);
    return true;
  }
};

// Concentrations of both stains, of all pixels.
struct Concentrations {
  __device__ bool keys(const Projection& projection, const u8* pixel, u64* result) const {
    result[0] = key_of(projection.at(0, pixel));
    result[1] = key_of(projection.at(1, pixel));
    return true;
  }
};

struct Search {
  u64 low, high;  // the value sought is among the keys from low to high
  u32 rank;       // from 0, among those
  u32 count;      // of those
};

// The keys of two ranks. First their range; then bins of equal width in it, until few are left in the one that holds
// the rank; these are listed and compared. Integers all through: the number of rounds is bounded by 64 / 11.
template <class Values>
__device__ void select(const Values values, const Projection& projection, const u8* set, int pixels_per_set,
                       const int* ranks, double* result) {
  __shared__ Search search[2];
  __shared__ u64 place[2][LISTED];  // bins (u32), then listed keys
  __shared__ u32 segments[2][BINS / SEGMENT];
  __shared__ u32 listed[2];
  u64 keys[2];
  if (threadIdx.x == 0)
    for (int q = 0; q < 2; ++q) {
      search[q].low = ~0ull;
      search[q].high = 0;
      search[q].rank = ranks[q];
      search[q].count = ~0u;
    }
  __syncthreads();
  u64 lowest[2] = {~0ull, ~0ull}, highest[2] = {0, 0};
  for (int i = threadIdx.x; i < pixels_per_set; i += blockDim.x) {
    if (!values.keys(projection, set + 3 * (i64)i, keys)) continue;
    for (int q = 0; q < 2; ++q) {
      lowest[q] = keys[q] < lowest[q] ? keys[q] : lowest[q];
      highest[q] = keys[q] > highest[q] ? keys[q] : highest[q];
    }
  }
  for (int q = 0; q < 2; ++q) {
    atomicMin(&search[q].low, lowest[q]);
    atomicMax(&search[q].high, highest[q]);
  }
  __syncthreads();
  while (search[0].count > LISTED || search[1].count > LISTED) {
    // All threads have read the condition before one of them changes it.
    __syncthreads();
    bool active[2];
    int shift[2];
    for (int q = 0; q < 2; ++q) {
      active[q] = search[q].count > LISTED;
      const u64 range = search[q].high - search[q].low;
      const int bits = range ? 64 - __clzll((i64)range) : 0;
      shift[q] = bits > BINS_LOG2 ? bits - BINS_LOG2 : 0;
    }
    for (int bin = threadIdx.x; bin < 2 * BINS; bin += blockDim.x) ((u32*)place[bin / BINS])[bin % BINS] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < pixels_per_set; i += blockDim.x) {
      if (!values.keys(projection, set + 3 * (i64)i, keys)) continue;
      for (int q = 0; q < 2; ++q)
        if (active[q] && keys[q] >= search[q].low && keys[q] <= search[q].high)
          atomicAdd(&((u32*)place[q])[(keys[q] - search[q].low) >> shift[q]], 1u);
    }
    __syncthreads();
    for (int part = threadIdx.x; part < 2 * (BINS / SEGMENT); part += blockDim.x) {
      const int q = part / (BINS / SEGMENT), segment = part % (BINS / SEGMENT);
      u32 sum = 0;
      for (int bin = 0; bin < SEGMENT; ++bin) sum += ((u32*)place[q])[segment * SEGMENT + bin];
      segments[q][segment] = sum;
    }
    __syncthreads();
    for (int q = threadIdx.x; q < 2; q += blockDim.x) {
      if (!active[q]) continue;
      u32 rank = search[q].rank;
      int segment = 0;
      for (; rank >= segments[q][segment]; ++segment) rank -= segments[q][segment];
      const u32* bins = (const u32*)place[q] + segment * SEGMENT;
      int bin = 0;
      for (; rank >= bins[bin]; ++bin) rank -= bins[bin];
      search[q].rank = rank;
      search[q].low += (u64)(segment * SEGMENT + bin) << shift[q];
      const u64 end = search[q].low + ((1ull << shift[q]) - 1);
      search[q].high = end < search[q].high ? end : search[q].high;
      // A bin of one key holds nothing but that key, however often.
      search[q].count = shift[q] ? bins[bin] : 0;
    }
    __syncthreads();
  }
  for (int q = threadIdx.x; q < 2; q += blockDim.x) listed[q] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < pixels_per_set; i += blockDim.x) {
    if (!values.keys(projection, set + 3 * (i64)i, keys)) continue;
    for (int q = 0; q < 2; ++q)
      if (search[q].count && keys[q] >= search[q].low && keys[q] <= search[q].high)
        place[q][atomicAdd(&listed[q], 1u)] = keys[q];
  }
  __syncthreads();
  for (int q = 0; q < 2; ++q) {
    if (!search[q].count && threadIdx.x == 0) result[q] = value_of(search[q].low);
    for (u32 i = threadIdx.x; i < listed[q]; i += blockDim.x) {
      const u64 candidate = place[q][i];
      u32 below = 0, same = 0;
      for (u32 j = 0; j < listed[q]; ++j) {
        below += place[q][j] < candidate;
        same += place[q][j] == candidate;
      }
      // Several threads may write, all the same value.
      if (below <= search[q].rank && search[q].rank < below + same) result[q] = value_of(candidate);
    }
  }
}

// Two order statistics of the kept pixels' pseudo-angle per set; axes: (sets, 2, 3); ranks: (sets, 2), −1 for none.
extern "C" __global__ void pseudo_angles(const u8* pixels, int pixels_per_set, const double* od, int brightest,
                                         const double* axes, const int* ranks, double* result) {
  __shared__ Projection projection;
  if (ranks[2 * blockIdx.x] < 0) return;
  projection.fill(od, axes + 6 * blockIdx.x);
  __syncthreads();
  Angles values;
  values.brightest = brightest;
  select(values, projection, pixels + 3 * (i64)pixels_per_set * blockIdx.x, pixels_per_set, ranks + 2 * blockIdx.x,
         result + 2 * blockIdx.x);
}

// The order statistic of both concentrations of all pixels per set; inverses: (sets, 2, 3); ranks: (sets, 2).
extern "C" __global__ void concentrations(const u8* pixels, int pixels_per_set, const double* od,
                                          const double* inverses, const int* ranks, double* result) {
  __shared__ Projection projection;
  if (ranks[2 * blockIdx.x] < 0) return;
  projection.fill(od, inverses + 6 * blockIdx.x);
  __syncthreads();
  select(Concentrations(), projection, pixels + 3 * (i64)pixels_per_set * blockIdx.x, pixels_per_set,
         ranks + 2 * blockIdx.x, result + 2 * blockIdx.x);
}

// ------------------------------------------------------------------------------------------------- tables and pixels

// What stays the same from call to call; `exaone_prep.stain.exponential` and `tables` say what each is.
struct Constants {
  double log2_e, ln2_high, ln2_low, max_exponent, max_entry, io;
  double coefficients[14];
};

// The tables of corrections, one block each: matrices (n, 3, 3) to words (n, 3, 256) of lanes red, green, blue, zero.
extern "C" __global__ void tables(const double* matrices, const double* od, const Constants* constants,
                                  float4* words) {
  const Constants& c = *constants;
  for (int row = threadIdx.x; row < 3 * 256; row += blockDim.x) {
    const int channel = row / 256, level = row % 256;
    float lanes[3];
    for (int lane = 0; lane < 3; ++lane) {
      double x = -matrices[9 * blockIdx.x + 3 * lane + channel] * od[level];
      x = x < -c.max_exponent ? -c.max_exponent : x > c.max_exponent ? c.max_exponent : x;
      const double k = rint(x * c.log2_e);
      const double rest = (x - k * c.ln2_high) - k * c.ln2_low;
      double entry = c.coefficients[0];
      for (int term = 1; term < 14; ++term) entry = entry * rest + c.coefficients[term];
      entry = entry * __longlong_as_double(((i64)k + 1023) << 52);
      if (channel == 0) entry = entry * c.io;
      const double least = 1.0 / c.max_entry;
      lanes[lane] = (float)(entry < least ? least : entry > c.max_entry ? c.max_entry : entry);
    }
    float4 word;
    word.x = lanes[0];
    word.y = lanes[1];
    word.z = lanes[2];
    word.w = 0.0f;
    words[768 * (i64)blockIdx.x + row] = word;
  }
}

// Grey levels trunc(min(255, (a · b) · c)) of the three words of a pixel, red in the lowest byte.
__device__ inline u32 look_up(const float4* words, u32 red, u32 green, u32 blue) {
  const float4 a = words[red], b = words[256 + green], c = words[512 + blue];
  const float x = a.x * b.x * c.x, y = a.y * b.y * c.y, z = a.z * b.z * c.z;
  return (u32)(x < 255.0f ? x : 255.0f) | (u32)(y < 255.0f ? y : 255.0f) << 8 | (u32)(z < 255.0f ? z : 255.0f) << 16;
}

// Pixels by their tables, in place: blocks (x) share a set (y); which[set] is the number of its table, −1 for none.
extern "C" __global__ void apply(u8* pixels, int pixels_per_set, const float4* tables_of_all, const int* which) {
  __shared__ float4 words[768];
  if (which[blockIdx.y] < 0) return;
  const float4* table = tables_of_all + 768 * (i64)which[blockIdx.y];
  for (int row = threadIdx.x; row < 768; row += blockDim.x) words[row] = table[row];
  __syncthreads();
  u8* set = pixels + 3 * (i64)pixels_per_set * blockIdx.y;
  const int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
  // Four pixels are three words of four bytes, where sets begin at such words.
  const int quads = pixels_per_set % 4 == 0 ? pixels_per_set / 4 : 0;
  u32* quad = (u32*)set;
  for (int i = thread; i < quads; i += threads) {
    const u32 a = quad[3 * (i64)i], b = quad[3 * (i64)i + 1], c = quad[3 * (i64)i + 2];
    const u32 p = look_up(words, a & 255, a >> 8 & 255, a >> 16 & 255);
    const u32 q = look_up(words, a >> 24, b & 255, b >> 8 & 255);
    const u32 r = look_up(words, b >> 16 & 255, b >> 24, c & 255);
    const u32 s = look_up(words, c >> 8 & 255, c >> 16 & 255, c >> 24);
    quad[3 * (i64)i] = p | q << 24;
    quad[3 * (i64)i + 1] = q >> 8 | r << 16;
    quad[3 * (i64)i + 2] = r >> 16 | s << 8;
  }
  for (int i = 4 * quads + thread; i < pixels_per_set; i += threads) {
    const u32 p = look_up(words, set[3 * (i64)i], set[3 * (i64)i + 1], set[3 * (i64)i + 2]);
    set[3 * (i64)i] = p & 255;
    set[3 * (i64)i + 1] = p >> 8 & 255;
    set[3 * (i64)i + 2] = p >> 16;
  }
}
