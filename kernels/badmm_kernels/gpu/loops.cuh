// The loops of all CUDA kernels: maps, sums over coordinates, sums over clients, and the record of a domain error.
//
// A generated kernel is one of these loops around the functions of one coordinate (`F` below), which come from the
// family's header. F has IN inputs and OUT results; bit masks over inputs and then results of the values that must be
// POSITIVE, NEGATIVE, or are otherwise CHECKED to be finite; and `at(x, y, s)` (a map) or `term(x, s)` (a sum), whose
// inputs may have to fulfil a condition together (JOINT): a term is no number where they do not.
// NVRTC compiles this file without any other header; the tests compile it for the host.
#ifndef BADMM_LOOPS_CUH
#define BADMM_LOOPS_CUH

#include "badmm/special.h"

namespace badmm {

typedef long long Index;
typedef unsigned long long Word;

constexpr int INPUTS = 10, OUTPUTS = 6, SLOTS = 4, SCALARS = 12;  // the largest call; launch.py has the same numbers
constexpr Index CHUNK = 1024;  // coordinates per partial sum: fixed, so that no sum depends on the size of the grid
constexpr int OVERFLOWED = 15;  // instead of an operand's number: the sum itself

// Inputs and outputs of one slot, rows x width coordinates each. An input shared by all rows has step 0.
struct Slot {
    const void *in[INPUTS];
    Index step[INPUTS];
    void *out[OUTPUTS];
    Index rows, width;
};

// The first domain error on a device, shared by all its kernels; all zeros if there is none. The host reads it when it
// waits for the device.
struct Status {
    Word launch;  // number of the launch that failed first
    Word lock;
    Word rank;  // complement of the smallest key (slot, operand, index) of that launch
    double value[INPUTS + OUTPUTS];  // inputs and results there
};

// The result of a sum: a partial sum, the total, or the total followed by whether any launch has failed.
enum Last { PARTIAL = 0, TOTAL = 1, TOTAL_AND_STATUS = 2 };

// The one argument of every kernel, passed by value.
struct Call {
    Slot slot[SLOTS];
    double scalar[SCALARS];
    Status *status;
    Word launch;
    Index last;
};

// The order of errors: slot, operand, index. It makes the reported error independent of timing.
__device__ __forceinline__ Word key_of(int slot, int operand, Index index)
{
    return ((Word)slot << 60) | ((Word)operand << 56) | (Word)index;
}

__device__ __forceinline__ int outside(float value, bool bounded)
{
    return bounded ? badmm_outside_f32(value, 0.0f) : badmm_outside_f32(fabsf(value), -1.0f);
}

__device__ __forceinline__ int outside(double value, bool bounded)
{
    return bounded ? badmm_outside_f64(value, 0.0) : badmm_outside_f64(fabs(value), -1.0);
}

// Whether value number k of F is outside its domain. With `all`, values that F does not check must be finite too.
template <class F, class T>
__device__ __forceinline__ int outside_domain(int k, T value, bool all = false)
{
    const bool positive = F::POSITIVE >> k & 1, negative = F::NEGATIVE >> k & 1;
    if (!positive && !negative && !all && !(F::CHECKED >> k & 1)) return 0;
    return outside(negative ? -value : value, positive || negative);
}

// Keeps the smallest key of the first launch that fails, with the values there. A thread takes and releases the lock
// within one branch, so that lanes of a warp cannot wait for each other.
template <class C, int N, int M, class T, class U>
__device__ __forceinline__ void record(const C &call, Word key, const T (&x)[N], const U (&y)[M])
{
    Status *status = call.status;
    const Word first = atomicCAS(&status->launch, 0ull, call.launch);
    if (first != 0ull && first != call.launch) return;
    const Word rank = ~key;
    for (bool waiting = true; waiting;) {
        if (*(volatile Word *)&status->rank >= rank) break;
        if (atomicCAS(&status->lock, 0ull, 1ull) == 0ull) {
            __threadfence();
            if (*(volatile Word *)&status->rank < rank) {
                *(volatile Word *)&status->rank = rank;
#pragma unroll
                for (int k = 0; k < N; ++k) *(volatile double *)&status->value[k] = (double)x[k];
#pragma unroll
                for (int k = 0; k < M; ++k) *(volatile double *)&status->value[N + k] = (double)y[k];
            }
            __threadfence();
            atomicExch(&status->lock, 0ull);
            waiting = false;
        }
    }
}

// Loads and stores of W neighbouring elements: 16 bytes in one instruction, or a single element. The compiler may split
// a plain store of 16 bytes; __stwb, a store with the usual caching, stays one instruction.
__device__ __forceinline__ void load(float (&x)[4], const void *from, Index i)
{
    const float4 pack = *(const float4 *)((const float *)from + i);
    x[0] = pack.x, x[1] = pack.y, x[2] = pack.z, x[3] = pack.w;
}

__device__ __forceinline__ void load(double (&x)[2], const void *from, Index i)
{
    const double2 pack = *(const double2 *)((const double *)from + i);
    x[0] = pack.x, x[1] = pack.y;
}

template <class T> __device__ __forceinline__ void load(T (&x)[1], const void *from, Index i)
{
    x[0] = ((const T *)from)[i];
}

__device__ __forceinline__ void store(const float (&y)[4], void *to, Index i)
{
    __stwb((float4 *)((float *)to + i), make_float4(y[0], y[1], y[2], y[3]));
}

__device__ __forceinline__ void store(const double (&y)[2], void *to, Index i)
{
    __stwb((double2 *)((double *)to + i), make_double2(y[0], y[1]));
}

template <class T> __device__ __forceinline__ void store(const T (&y)[1], void *to, Index i)
{
    ((T *)to)[i] = y[0];
}

// Maps coordinates i .. i + W - 1 of one row. All inputs are loaded before any output is stored, so that an output may
// share its memory with an input.
template <class T, int W, class F>
__device__ __forceinline__ void coordinates(const Call &call, const Slot &slot, Index row, Index i, Word &least)
{
    T x[F::IN][W], y[F::OUT][W];
#pragma unroll
    for (int k = 0; k < F::IN; ++k) load(x[k], slot.in[k], row * slot.step[k] + i);
#pragma unroll
    for (int w = 0; w < W; ++w) {
        T in[F::IN], out[F::OUT];
        int wrong = 0;
#pragma unroll
        for (int k = 0; k < F::IN; ++k) in[k] = x[k][w];
        F::at(in, out, call.scalar);
#pragma unroll
        for (int k = 0; k < F::IN; ++k) wrong |= outside_domain<F>(k, in[k]);
#pragma unroll
        for (int k = 0; k < F::OUT; ++k) {
            wrong |= outside_domain<F>(F::IN + k, out[k]);
            y[k][w] = out[k];
        }
        if (wrong) {
            const Word key = key_of(blockIdx.z, 0, row * slot.width + i + w);
            if (key < least) record(call, least = key, in, out);
        }
    }
#pragma unroll
    for (int k = 0; k < F::OUT; ++k) store(y[k], slot.out[k], row * slot.width + i);
}

// Maps rows x width coordinates; z is the slot. W > 1 needs rows that start at multiples of 16 bytes.
template <class T, int W, class F> __device__ __forceinline__ void map(const Call &call)
{
    const Slot &slot = call.slot[blockIdx.z];
    const Index down = (Index)gridDim.y * blockDim.y, along = (Index)gridDim.x * blockDim.x * W;
    Word least = ~0ull;
    for (Index row = (Index)blockIdx.y * blockDim.y + threadIdx.y; row < slot.rows; row += down) {
        Index i = ((Index)blockIdx.x * blockDim.x + threadIdx.x) * W;
        for (; i + W <= slot.width; i += along) coordinates<T, W, F>(call, slot, row, i, least);
        if (W > 1)
            for (; i < slot.width; ++i) coordinates<T, 1, F>(call, slot, row, i, least);
    }
}

// Records the first operand and client that are not finite in a column whose sum is not finite, else the sum itself.
template <class T, class F>
__device__ __forceinline__ void record_overflow(const Call &call, const Slot &slot, Index i, T sum)
{
    T value[1] = {sum};
    const T none[1] = {sum};
    Word key = key_of(blockIdx.z, OVERFLOWED, i);
    for (int k = F::IN - 1; k >= 0; --k)
        for (Index client = slot.rows - 1; client >= 0; --client) {
            const T seen = ((const T *)slot.in[k])[client * slot.width + i];
            if (outside(seen, false)) {
                key = key_of(blockIdx.z, k, client * slot.width + i);
                value[0] = seen;
            }
        }
    record(call, key, value, none);
}

// Sums one term per column over clients (rows) in double; a thread owns its columns and adds the clients in order.
template <class T, int W, class F> __device__ __forceinline__ void client_sum(const Call &call)
{
    const Slot &slot = call.slot[blockIdx.z];
    const Index along = (Index)gridDim.x * blockDim.x * W;
    for (Index i = ((Index)blockIdx.x * blockDim.x + threadIdx.x) * W; i < slot.width; i += along) {
        double total[W];
#pragma unroll
        for (int w = 0; w < W; ++w) total[w] = 0.0;
#pragma unroll 4
        for (Index client = 0; client < slot.rows; ++client) {
            T x[F::IN][W];
#pragma unroll
            for (int k = 0; k < F::IN; ++k) load(x[k], slot.in[k], client * slot.width + i);
#pragma unroll
            for (int w = 0; w < W; ++w) {
                double in[F::IN];
#pragma unroll
                for (int k = 0; k < F::IN; ++k) in[k] = (double)x[k][w];
                total[w] += F::term(in, call.scalar);
            }
        }
        T y[W];
#pragma unroll
        for (int w = 0; w < W; ++w) y[w] = (T)total[w];
        store(y, slot.out[0], i);
#pragma unroll
        for (int w = 0; w < W; ++w)
            if (outside(y[w], false)) record_overflow<T, F>(call, slot, i + w, y[w]);
    }
}

__device__ __forceinline__ double warp_sum(double sum)
{
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_down_sync(0xffffffffu, sum, apart);
    return sum;
}

// Sums the terms of every chunk of every row, one warp (blockDim.x = 32) per chunk, in a fixed order: lane l takes
// groups l, l + 32, ... of G neighbours, whether they are loaded together (W = G) or one by one (W = 1).
template <class T, int W, class F> __device__ __forceinline__ void sum(const Call &call)
{
    constexpr int G = 16 / sizeof(T);
    const Slot &slot = call.slot[0];
    const Index chunks = (slot.width + CHUNK - 1) / CHUNK, down = (Index)gridDim.x * blockDim.y;
    double *partial = (double *)slot.out[0];
    Word least = ~0ull;
    for (Index c = (Index)blockIdx.x * blockDim.y + threadIdx.y; c < slot.rows * chunks; c += down) {
        const Index row = c / chunks, start = c % chunks * CHUNK;
        const Index stop = start + CHUNK < slot.width ? start + CHUNK : slot.width;
        double total = 0.0;
        for (Index i = start + threadIdx.x * G; i < stop; i += 32 * G) {
            T x[F::IN][G];
            const int count = stop - i < G ? (int)(stop - i) : G;
#pragma unroll
            for (int k = 0; k < F::IN; ++k) {
                const Index from = row * slot.step[k] + i;
                if (W == G && count == G) {
                    load(x[k], slot.in[k], from);
                } else {
#pragma unroll
                    for (int g = 0; g < G; ++g) x[k][g] = g < count ? ((const T *)slot.in[k])[from + g] : T(0);
                }
            }
#pragma unroll
            for (int g = 0; g < G; ++g) {
                if (g >= count) break;
                double in[F::IN];
                int culprit = F::IN;
#pragma unroll
                for (int k = F::IN - 1; k >= 0; --k) {
                    in[k] = (double)x[k][g];
                    if (outside_domain<F>(k, in[k])) culprit = k;
                }
                const double term = F::term(in, call.scalar);
                total += term;
                if (culprit < F::IN || (F::JOINT && outside(term, false))) {
                    Index at = i + g + (culprit == F::IN ? row * slot.width : 0);
#pragma unroll
                    for (int k = 0; k < F::IN; ++k)
                        if (k == culprit) at += row * slot.step[k];
                    const Word key = key_of(0, culprit, at);
                    const double none[1] = {0.0};
                    if (key < least) record(call, least = key, in, none);
                }
            }
        }
        total = warp_sum(total);
        if (threadIdx.x == 0) {
            partial[c] = total;
            if (call.last && outside(total, false)) {
                const double value[1] = {total};
                record(call, key_of(0, OVERFLOWED, row), value, value);
            }
            if (call.last == TOTAL_AND_STATUS) partial[1] = *(volatile Word *)&call.status->launch ? 1.0 : 0.0;
        }
    }
}

}  // namespace badmm

#endif
