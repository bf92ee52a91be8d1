// What a C++ compiler needs to build `exaone_prep/stain/kernels.cu` for the CPU: CUDA's words in terms of threads.
//
// A block is one thread, or as many std::threads as asked, which meet at __syncthreads(). Blocks follow one another.

#include <barrier>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

using std::rint;

struct Index {
  unsigned x, y;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

static thread_local Index threadIdx;
static Index blockIdx, blockDim, gridDim;
static std::barrier<>* meeting = nullptr;

inline void __syncthreads() {
#ifndef NEVER_MEET  // so that a test can see what happens then
  if (meeting) meeting->arrive_and_wait();
#endif
}

template <class T>
T atomicAdd(T* place, T value) {
  return __atomic_fetch_add(place, value, __ATOMIC_RELAXED);
}

template <class T>
void atomicMin(T* place, T value) {
  T seen = __atomic_load_n(place, __ATOMIC_RELAXED);
  while (value < seen && !__atomic_compare_exchange_n(place, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

template <class T>
void atomicMax(T* place, T value) {
  T seen = __atomic_load_n(place, __ATOMIC_RELAXED);
  while (value > seen && !__atomic_compare_exchange_n(place, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

inline int __clzll(long long bits) { return __builtin_clzll((unsigned long long)bits); }

inline long long __double_as_longlong(double value) {
  long long bits;
  std::memcpy(&bits, &value, 8);
  return bits;
}

inline double __longlong_as_double(long long bits) {
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}

// Static "shared" memory is one block's at a time.
static std::mutex one_launch_at_a_time;

template <class Kernel>
void launch(int columns, int rows, int threads, Kernel kernel) {
  const std::lock_guard<std::mutex> held(one_launch_at_a_time);
  gridDim = {(unsigned)columns, (unsigned)rows};
  blockDim = {(unsigned)threads, 1};
  for (unsigned y = 0; y < gridDim.y; ++y)
    for (unsigned x = 0; x < gridDim.x; ++x) {
      blockIdx = {x, y};
      if (threads == 1) {
        threadIdx = {0, 0};
        kernel();
        continue;
      }
      std::barrier<> together(threads);
      meeting = &together;
      std::vector<std::thread> crew;
      for (int thread = 0; thread < threads; ++thread)
        crew.emplace_back([&kernel, &together, thread] {
          threadIdx = {(unsigned)thread, 0};
          kernel();
          together.arrive_and_drop();
        });
      for (std::thread& one : crew) one.join();
      meeting = nullptr;
    }
}

#include KERNELS

#define LAUNCHER(name, parameters, ...)                                                     \
  extern "C" void launch_##name(int columns, int rows, int threads, parameters) {           \
    launch(columns, rows, threads, [=] { name(__VA_ARGS__); });                             \
  }
#define WITH(...) __VA_ARGS__

LAUNCHER(moments, WITH(const u8* pixels, int n, int row, const i64* densities, i64* sums), pixels, n, row, densities,
         sums)
LAUNCHER(pseudo_angles, WITH(const u8* pixels, int n, const double* od, int brightest, const double* axes,
                             const int* ranks, double* result),
         pixels, n, od, brightest, axes, ranks, result)
LAUNCHER(concentrations, WITH(const u8* pixels, int n, const double* od, const double* inverses, const int* ranks,
                              double* result),
         pixels, n, od, inverses, ranks, result)
LAUNCHER(tables, WITH(const double* matrices, const double* od, const Constants* constants, float4* words), matrices,
         od, constants, words)
LAUNCHER(apply, WITH(u8* pixels, int n, const float4* words, const int* which), pixels, n, words, which)
