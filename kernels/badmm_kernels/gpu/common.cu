// Kernels that all families share: sums of partial sums, and the record of a failed check of matrices.
#include "loops.cuh"

namespace coordinate {

struct partial_sums {
    static constexpr int IN = 1;
    static constexpr unsigned POSITIVE = 0, NEGATIVE = 0, CHECKED = 0;
    static constexpr bool JOINT = false;
    __device__ static double term(const double (&x)[1], const double *) { return x[0]; }
};

}  // namespace coordinate

extern "C" __global__ void __launch_bounds__(256, 4) partial_sums_f64x2(const __grid_constant__ badmm::Call call)
{
    badmm::sum<double, 2, coordinate::partial_sums>(call);
}
extern "C" __global__ void __launch_bounds__(256, 4) partial_sums_f64x1(const __grid_constant__ badmm::Call call)
{
    badmm::sum<double, 1, coordinate::partial_sums>(call);
}

// in[0]: an index, or -1 if the check passed; in[1]: two values per index. scalar[0]: number of the check.
extern "C" __global__ void __launch_bounds__(256, 4) report_f64x1(const __grid_constant__ badmm::Call call)
{
    const badmm::Slot &slot = call.slot[0];
    const badmm::Index *found = (const badmm::Index *)slot.in[0];
    const double *beside = (const double *)slot.in[1];
    const badmm::Index along = (badmm::Index)gridDim.x * blockDim.x;
    for (badmm::Index i = (badmm::Index)blockIdx.x * blockDim.x + threadIdx.x; i < slot.width; i += along)
        if (found[i] >= 0) {
            const double value[2] = {beside[2 * i], beside[2 * i + 1]};
            badmm::record(call, badmm::key_of(0, (int)call.scalar[0], found[i]), value, value);
        }
}
