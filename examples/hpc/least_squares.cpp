// Federated least squares in one round of Bayesian ADMM, from C++17; what it computes is said in least_squares.c.
//
//     c++ -std=c++17 -O2 $(python -m badmm_kernels --includes) least_squares.cpp -o least_squares_cpp
//
// Here the lines are called one by one, and the server adds its clients' terms in double.
#include <cstddef>
#include <cstdio>
#include <vector>

#include "badmm/round.h"
#include "problem.h"

int main()
{
    using Natural = std::vector<double>;
    const double clients = CLIENTS, rho = 1.0 / clients, alpha = 1.0 / (1.0 + rho * clients), damping = 1.0;
    Natural prior(SIZE, 0.0);
    for (std::size_t i = 0; i < D; ++i) prior[D + i * D + i] = 0.5; // mean 0, precision 0.5 I

    Natural server = prior, total(SIZE, 0.0);
    for (int k = 0; k < CLIENTS; ++k) {
        Natural gradient(SIZE, 0.0), dual(SIZE, 0.0); // what client k keeps
        add_rows(k * ROWS, (k + 1) * ROWS, -1.0, gradient.data());
        for (std::size_t i = 0; i < SIZE; ++i) {
            const double client = badmm_round_client_map_f64(server[i], dual[i], gradient[i], rho);
            dual[i] = badmm_round_dual_update_f64(dual[i], server[i], client, rho, damping);
            total[i] += badmm_round_server_total_term(client, dual[i], alpha, CLIENTS);
        }
    }
    for (std::size_t i = 0; i < SIZE; ++i) server[i] = badmm_round_server_update_f64(prior[i], total[i], alpha);

    const double error = error_of(server.data(), prior.data());
    std::printf("C++: relative error after one round %.1e\n", error);
    if (!(error <= 1e-12)) {
        std::fprintf(stderr, "least_squares: expected the pooled solution to a relative 1e-12, got an error of %g\n",
                     error);
        return 1;
    }
    return 0;
}
