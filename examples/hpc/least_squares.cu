// Federated least squares in one round of Bayesian ADMM, from CUDA C++; what it computes is said in least_squares.c.
//
//     nvcc -O2 $(python -m badmm_kernels --includes) least_squares.cu -o least_squares_cuda
//
// The header's functions are __host__ __device__: the kernels below call them, one thread an entry of lambda.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "badmm/round.h"
#include "problem.h"

namespace {

using Natural = std::vector<double>;

void check(cudaError_t status, const char *what)
{
    if (status == cudaSuccess) return;
    std::fprintf(stderr, "least_squares: %s: %s\n", what, cudaGetErrorString(status));
    std::exit(EXIT_FAILURE);
}

// Client, dual and contribution lines of every client; gradient, dual and share have a leading client axis.
__global__ void client_lines(const double *server, const double *gradient, double *dual, double *share, double rho,
                             double damping, double alpha)
{
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= CLIENTS * SIZE) return;
    const double client = badmm_round_client_map_f64(server[i % SIZE], dual[i], gradient[i], rho);
    badmm_round_round_update_f64(dual[i], server[i % SIZE], client, rho, damping, alpha, CLIENTS, &dual[i],
                                         &share[i]);
}

// The sum over clients and the server line.
__global__ void server_line(const double *prior, const double *share, double *server, double alpha)
{
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= SIZE) return;
    double total = 0.0;
    for (int k = 0; k < CLIENTS; ++k) total += share[k * SIZE + i];
    server[i] = badmm_round_server_update_f64(prior[i], total, alpha);
}

// Memory on the device, freed with its owner.
class Buffer {
public:
    explicit Buffer(const Natural &values) : count_(values.size())
    {
        check(cudaMalloc(&data_, count_ * sizeof(double)), "cudaMalloc");
        check(cudaMemcpy(data_, values.data(), count_ * sizeof(double), cudaMemcpyHostToDevice), "cudaMemcpy");
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer() { check(cudaFree(data_), "cudaFree"); }
    double *data() { return data_; }
    Natural host() const
    {
        Natural values(count_);
        check(cudaMemcpy(values.data(), data_, count_ * sizeof(double), cudaMemcpyDeviceToHost), "cudaMemcpy");
        return values;
    }

private:
    double *data_ = nullptr;
    std::size_t count_;
};

} // namespace

int main()
{
    const double clients = CLIENTS, rho = 1.0 / clients, alpha = 1.0 / (1.0 + rho * clients), damping = 1.0;
    Natural prior(SIZE, 0.0), gradients(CLIENTS * SIZE, 0.0);
    for (int i = 0; i < D; ++i) prior[D + i * D + i] = 0.5; // mean 0, precision 0.5 I
    for (int k = 0; k < CLIENTS; ++k) add_rows(k * ROWS, (k + 1) * ROWS, -1.0, &gradients[k * SIZE]);

    Buffer initial(prior), server(prior), gradient(gradients), dual(Natural(CLIENTS * SIZE, 0.0)),
        share(Natural(CLIENTS * SIZE, 0.0));
    const int threads = 128;
    client_lines<<<(CLIENTS * SIZE + threads - 1) / threads, threads>>>(server.data(), gradient.data(), dual.data(),
                                                                        share.data(), rho, damping, alpha);
    check(cudaGetLastError(), "client_lines");
    server_line<<<(SIZE + threads - 1) / threads, threads>>>(initial.data(), share.data(), server.data(), alpha);
    check(cudaGetLastError(), "server_line");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");

    const double error = error_of(server.host().data(), prior.data());
    std::printf("CUDA: relative error after one round %.1e\n", error);
    if (!(error <= 1e-12)) {
        std::fprintf(stderr, "least_squares: expected the pooled solution to a relative 1e-12, got an error of %g\n",
                     error);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
