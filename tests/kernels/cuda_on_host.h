// Enough of CUDA to compile a .cu file for the host and run its kernels: what the tests execute is the text that NVRTC
// compiles, unchanged.
//
// Blocks are dealt to real threads, so that atomics and locks meet real concurrency. The CUDA threads of a block are
// fibers of one real thread that change places at a warp shuffle or a barrier: a lane that waits for others never blocks
// them, and order is the same on every run.
//
// Where CUDA_ON_HOST_LINKED is defined, the functions that run a grid are only declared: an object has them in which
// CUDA_ON_HOST_FUNCTION is defined as nothing.
#ifndef CUDA_ON_HOST_H
#define CUDA_ON_HOST_H

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)

#ifndef CUDA_ON_HOST_HAS_TYPES  // CUDA's own headers are not there
struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
#endif

namespace cuda_on_host {

constexpr std::size_t STACK = 64 * 1024;

struct Warp {
    double value[2][32];
    long arrived[2] = {0, 0};
};

// A fiber lives as long as its worker and runs one CUDA thread of block after block. It starts by setcontext and is
// resumed by longjmp, which unlike swapcontext makes no system call.
struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    std::unique_ptr<char[]> stack{new char[STACK]};
    dim3 thread;
    Warp *warp;
    unsigned lane;
    long shuffles;
    bool started = false, done;
};

struct Block {
    dim3 grid, size, index;
    jmp_buf scheduler;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Fiber *running;
    void (*kernel)(const void *, const void *);
    const void *entry, *call;
    unsigned arrived = 0;  // at the barrier
    long barriers = 0;
};

#ifdef CUDA_ON_HOST_LINKED
extern thread_local Block *here;
void wait_for_others();
void run_grid(void (*kernel)(const void *, const void *), const void *entry, const dim3 &grid, const dim3 &size,
              const void *call, unsigned workers);
#else
#ifndef CUDA_ON_HOST_FUNCTION
#define CUDA_ON_HOST_FUNCTION inline
#endif
CUDA_ON_HOST_FUNCTION thread_local Block *here = nullptr;

CUDA_ON_HOST_FUNCTION void wait_for_others()
{
    if (_setjmp(here->running->resume) == 0) _longjmp(here->scheduler, 1);
}

inline void fiber_main()
{
    for (;;) {
        here->kernel(here->entry, here->call);
        here->running->done = true;
        wait_for_others();
    }
}

// Run the fiber until it waits or is done.
__attribute__((noinline)) inline void advance(Block &block, Fiber &fiber)
{
    block.running = &fiber;
    if (_setjmp(block.scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, fiber_main, 0);
    setcontext(&fiber.start);
}

inline void run_block(Block &block)
{
    const unsigned count = block.size.x * block.size.y * block.size.z;
    for (Warp &warp : block.warps) warp = Warp();
    for (unsigned k = 0; k < count; ++k) {
        Fiber &fiber = block.fibers[k];
        fiber.thread = {k % block.size.x, k / block.size.x % block.size.y, k / (block.size.x * block.size.y)};
        fiber.warp = &block.warps[k / 32];
        fiber.lane = k % 32;
        fiber.shuffles = 0;
        fiber.done = false;
    }
    bool forward = true;  // by turns, so that nothing rests on the order of threads
    for (unsigned left = count; left > 0; forward = !forward)
        for (unsigned k = 0; k < count; ++k) {
            Fiber &fiber = block.fibers[forward ? k : count - 1 - k];
            if (fiber.done) continue;
            advance(block, fiber);
            if (fiber.done) --left;
        }
}

// Every block of a grid, dealt to `workers` real threads.
CUDA_ON_HOST_FUNCTION void run_grid(void (*kernel)(const void *, const void *), const void *entry, const dim3 &grid,
                                    const dim3 &size, const void *call, unsigned workers)
{
    const std::uint64_t blocks = (std::uint64_t)grid.x * grid.y * grid.z;
    const unsigned count = size.x * size.y * size.z;
    std::atomic<std::uint64_t> next{0};
    auto work = [&] {
        Block block{grid, size, {0, 0, 0}, {}, std::vector<Fiber>(count), std::vector<Warp>((count + 31) / 32), nullptr,
                    kernel, entry, call};
        here = &block;
        for (std::uint64_t b; (b = next++) < blocks;) {
            block.index = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
            run_block(block);
        }
        here = nullptr;
    };
    std::vector<std::thread> threads;
    for (unsigned k = 1; k < workers && k < blocks; ++k) threads.emplace_back(work);
    work();
    for (std::thread &thread : threads) thread.join();
}
#endif

}  // namespace cuda_on_host

#define threadIdx (cuda_on_host::here->running->thread)
#define blockIdx (cuda_on_host::here->index)
#define blockDim (cuda_on_host::here->size)
#define gridDim (cuda_on_host::here->grid)

// All 32 lanes take part. A lane writes one of two rows in turn and waits until the warp has: by the time a row is used
// again, every lane has read it.
template <class T> inline T __shfl_down_sync(unsigned, T value, unsigned apart)
{
    static_assert(sizeof(T) <= sizeof(double), "a shuffle moves at most 8 bytes");
    cuda_on_host::Fiber &self = *cuda_on_host::here->running;
    cuda_on_host::Warp &warp = *self.warp;
    const long turn = self.shuffles++, row = turn % 2;
    std::memcpy(&warp.value[row][self.lane], &value, sizeof(T));
    ++warp.arrived[row];
    while (warp.arrived[row] < 32 * (turn / 2 + 1)) cuda_on_host::wait_for_others();
    T other;
    std::memcpy(&other, &warp.value[row][self.lane + apart < 32 ? self.lane + apart : self.lane], sizeof(T));
    return other;
}

// All threads of the block take part.
inline void __syncthreads()
{
    cuda_on_host::Block &block = *cuda_on_host::here;
    const long now = block.barriers;
    if (++block.arrived == block.size.x * block.size.y * block.size.z) {
        block.arrived = 0;
        ++block.barriers;
    }
    while (block.barriers == now) cuda_on_host::wait_for_others();
}

#define CUDA_ON_HOST_ATOMIC(T)                                                                      \
    inline T atomicCAS(T *at, T expected, T desired)                                                \
    {                                                                                               \
        __atomic_compare_exchange_n(at, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        return expected;                                                                            \
    }                                                                                               \
    inline T atomicExch(T *at, T value) { return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST); }
CUDA_ON_HOST_ATOMIC(unsigned short)
CUDA_ON_HOST_ATOMIC(int)
CUDA_ON_HOST_ATOMIC(unsigned)
CUDA_ON_HOST_ATOMIC(unsigned long long)

template <class T> inline void __stwb(T *to, T value) { *to = value; }

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif
