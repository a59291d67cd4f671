// What stands before a kernel's source: CUDA's own types, cuda_on_host.h, and what CuPy's kernels use beyond it.
#ifndef CUPY_ON_HOST_DEVICE_H
#define CUPY_ON_HOST_DEVICE_H

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <time.h>
#include <unistd.h>
#include <vector_functions.h>

#undef __align__
#undef __constant__
#undef __device__
#undef __forceinline__
#undef __global__
#undef __grid_constant__
#undef __host__
#undef __launch_bounds__
#undef __noinline__
#undef __restrict__
#undef __shared__
#define CUDA_ON_HOST_HAS_TYPES
#ifndef CUDA_ON_HOST_FUNCTION  // but in grid.cpp
#define CUDA_ON_HOST_LINKED
#endif
#include "cuda_on_host.h"

#include <cmath>
#include <utility>

#define __align__(bytes) __attribute__((aligned(bytes)))
#define __constant__ static const
#define __restrict__ __restrict
#define __shared__ static thread_local  // a block is run by one thread

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
template <class T> inline T __ldg(const T *pointer) { return *pointer; }

// Nanoseconds; whoever waits for them to pass leaves the processor to others.
inline long long clock64()
{
    timespec now;
    usleep(50);
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

#define CUPY_ON_HOST_WHOLE(T)                                                                \
    inline T max(T a, T b) { return a < b ? b : a; }                                         \
    inline T min(T a, T b) { return b < a ? b : a; }
CUPY_ON_HOST_WHOLE(int)
CUPY_ON_HOST_WHOLE(unsigned)
CUPY_ON_HOST_WHOLE(long)
CUPY_ON_HOST_WHOLE(unsigned long)
CUPY_ON_HOST_WHOLE(long long)
CUPY_ON_HOST_WHOLE(unsigned long long)
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }

// bits of another type, as CuPy's atomics.cuh names them
template <class To, class From> inline To cupy_on_host_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int x) { return cupy_on_host_bits<float>(x); }
inline int __float_as_int(float x) { return cupy_on_host_bits<int>(x); }
inline double __longlong_as_double(long long x) { return cupy_on_host_bits<double>(x); }
inline long long __double_as_longlong(double x) { return cupy_on_host_bits<long long>(x); }

inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}

// A kernel by its address, with its arguments by theirs.
namespace cuda_on_host {

template <class... A> struct Bound {
    void (*kernel)(A...);
    void **arguments;
};

template <class... A, std::size_t... K> void call_with(const Bound<A...> &call, std::index_sequence<K...>)
{
    call.kernel(*static_cast<A *>(call.arguments[K])...);
}

template <class... A> void run_bound(const void *bound, const void *)
{
    call_with(*static_cast<const Bound<A...> *>(bound), std::index_sequence_for<A...>());
}

template <class... A>
void launch(void (*kernel)(A...), const unsigned *grid, const unsigned *block, void **arguments)
{
    const Bound<A...> bound{kernel, arguments};
    run_grid(run_bound<A...>, &bound, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, nullptr, 2);
}

template <class... A> std::vector<std::size_t> arguments(void (*)(A...)) { return {sizeof(A)...}; }

}  // namespace cuda_on_host

#define CUPY_ON_HOST_KERNEL(name)                                                                       \
    extern "C" void launch_##name(const unsigned *grid, const unsigned *block, void **arguments)        \
    {                                                                                                   \
        cuda_on_host::launch(&name, grid, block, arguments);                                            \
    }                                                                                                   \
    extern "C" std::vector<std::size_t> arguments_##name() { return cuda_on_host::arguments(&name); }

#endif
