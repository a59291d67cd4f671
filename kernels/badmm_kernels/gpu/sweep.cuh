// One pass of an optimizer over its coordinates, with the state updated in place and normals read or drawn by counter.
//
// F has IN inputs, then NORMALS normals, OUT results, the masks of loops.cuh over all three in that order, and
// `at(x, y, s)` for one coordinate. `draw(seed, step, block, numbers)` gives the normals of one block, 16 bytes of them;
// number j of block l of a tile of LANES blocks belongs to the tile's coordinate LANES j + l.
#ifndef BADMM_SWEEP_CUH
#define BADMM_SWEEP_CUH

#include "loops.cuh"

namespace badmm {

constexpr int STEPS = 2;  // largest number of normals of a sweep

// The one argument of a sweep's kernel. `scalar` and `address` hold for all rows unless `scalars` and `addresses` are
// given.
struct Sweep {
    Slot slot;                  // inputs, then normals that are read; results, then normals that are kept
    double scalar[SCALARS];
    double number[INPUTS];      // values of the inputs without memory
    Word address[1 + STEPS];    // the seed, then one counter per normal
    const double *scalars;      // scalars per row, or null
    const Word *addresses;      // seed and counters per row, or null
    Index count;                // number of scalars per row
    Word alone;                 // bit mask of inputs that are one number per row
    Word drawn;                 // bit mask of normals that are drawn
    Status *status;
    Word launch;
};

// Input k of one coordinate: from an array, a number, or a normal that is read.
template <class T, class F>
__device__ __forceinline__ T input(const Sweep &call, int k, Index row, Index i)
{
    const T *from = (const T *)call.slot.in[k];
    if (!from) return (T)call.number[k];
    return from[row * call.slot.step[k] + (call.alone >> k & 1 ? 0 : i)];
}

// Computes the results of one coordinate and tests the domains of inputs and results.
template <class T, class F>
__device__ __forceinline__ void advance(const Sweep &call, Index row, Index i, const double *s,
                                        const T (&x)[F::IN + F::NORMALS], T (&y)[F::OUT], Word &least)
{
    constexpr int N = F::IN + F::NORMALS;
    int wrong = 0;
    F::at(x, y, s);
#pragma unroll
    for (int k = 0; k < N; ++k) wrong |= outside_domain<F>(k, x[k]);
#pragma unroll
    for (int k = 0; k < F::OUT; ++k) wrong |= outside_domain<F>(N + k, y[k]);
    if (wrong) {
        const Word key = key_of(0, 0, row * call.slot.width + i);
        if (key < least) record(call, least = key, x, y);
    }
}

// Each thread takes the G coordinates of one block of normals: G neighbours loaded together (W = G, nothing drawn), or
// (W = 1) coordinates at distance LANES, so that a warp loads and stores neighbours.
template <class T, int W, class F> __device__ __forceinline__ void sweep(const Sweep &call)
{
    constexpr int G = 16 / sizeof(T), N = F::IN + F::NORMALS;
    constexpr Index apart = W == 1 ? F::LANES : 1;
    const Slot &slot = call.slot;
    const Index tile = G * apart, blocks = (slot.width + tile - 1) / tile * apart;
    const Index down = (Index)gridDim.y * blockDim.y, along = (Index)gridDim.x * blockDim.x;
    Word least = ~0ull;
    for (Index row = (Index)blockIdx.y * blockDim.y + threadIdx.y; row < slot.rows; row += down) {
        double s[SCALARS] = {};
#pragma unroll
        for (int k = 0; k < F::SCALAR; ++k) s[k] = call.scalars ? call.scalars[row * call.count + k] : call.scalar[k];
        Word address[1 + STEPS];
#pragma unroll
        for (int k = 0; k < 1 + F::NORMALS; ++k)
            address[k] = call.addresses ? call.addresses[row * (1 + F::NORMALS) + k] : call.address[k];
        for (Index block = (Index)blockIdx.x * blockDim.x + threadIdx.x; block < blocks; block += along) {
            const Index base = block / apart * tile + block % apart;
            T x[N][G], y[F::OUT][G];
            if (W == G && base + G <= slot.width) {
#pragma unroll
                for (int k = 0; k < N; ++k) {
                    if (slot.in[k] && !(call.alone >> k & 1)) {
                        load(x[k], slot.in[k], row * slot.step[k] + base);
                    } else {
                        const T one = input<T, F>(call, k, row, 0);
#pragma unroll
                        for (int g = 0; g < G; ++g) x[k][g] = one;
                    }
                }
            } else {
#pragma unroll
                for (int k = 0; k < N; ++k) {
                    if (W == 1 && k >= F::IN && (call.drawn >> (k - F::IN) & 1)) {
                        F::draw(address[0], address[k - F::IN + 1], (Word)block, x[k]);
                    } else {
#pragma unroll
                        for (int g = 0; g < G; ++g)
                            x[k][g] = base + g * apart < slot.width ? input<T, F>(call, k, row, base + g * apart) : T(0);
                    }
                }
            }
#pragma unroll
            for (int g = 0; g < G; ++g) {
                if (base + g * apart >= slot.width) break;
                T in[N], out[F::OUT];
#pragma unroll
                for (int k = 0; k < N; ++k) in[k] = x[k][g];
                advance<T, F>(call, row, base + g * apart, s, in, out, least);
#pragma unroll
                for (int k = 0; k < F::OUT; ++k) y[k][g] = out[k];
            }
            const Index to = row * slot.width + base;
            if (W == G && base + G <= slot.width) {
#pragma unroll
                for (int k = 0; k < F::OUT; ++k) store(y[k], slot.out[k], to);
                continue;
            }
#pragma unroll
            for (int g = 0; g < G; ++g) {
                if (base + g * apart >= slot.width) break;
#pragma unroll
                for (int k = 0; k < F::OUT; ++k) ((T *)slot.out[k])[to + g * apart] = y[k][g];
#pragma unroll
                for (int k = 0; k < F::NORMALS; ++k)
                    if (slot.out[F::OUT + k]) ((T *)slot.out[F::OUT + k])[to + g * apart] = x[F::IN + k][g];
            }
        }
    }
}

// Draws normals into out[0].
template <class T, class F> __device__ __forceinline__ void noise(const Sweep &call)
{
    constexpr int G = 16 / sizeof(T);
    const Slot &slot = call.slot;
    const Index tile = G * F::LANES, blocks = (slot.width + tile - 1) / tile * F::LANES;
    const Index down = (Index)gridDim.y * blockDim.y, along = (Index)gridDim.x * blockDim.x;
    for (Index row = (Index)blockIdx.y * blockDim.y + threadIdx.y; row < slot.rows; row += down) {
        const Word *address = call.addresses ? call.addresses + 2 * row : call.address;
        for (Index block = (Index)blockIdx.x * blockDim.x + threadIdx.x; block < blocks; block += along) {
            const Index base = block / F::LANES * tile + block % F::LANES;
            T numbers[G];
            F::draw(address[0], address[1], (Word)block, numbers);
#pragma unroll
            for (int g = 0; g < G; ++g)
                if (base + g * F::LANES < slot.width)
                    ((T *)slot.out[0])[row * slot.width + base + g * F::LANES] = numbers[g];
        }
    }
}

}  // namespace badmm

#endif
