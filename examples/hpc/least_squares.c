/* Federated least squares in one round of Bayesian ADMM, from C with OpenMP.
 *
 *     cc -std=c99 -O2 -fopenmp $(python -m badmm_kernels --includes) least_squares.c -o least_squares_c -lm
 *
 * With a full Gaussian the natural gradient of a client's quadratic loss is the constant (-b, -H). One round with
 * rho = 1/K, alpha = 1/(1 + rho K), gamma = 1 from lambda_g = lambda_0 and dual = 0 is then exact: the result has to be the
 * solution with all rows in one place. */
#include <stdio.h>
#include <string.h>

#include "badmm/round.h"
#include "problem.h"

int main(void)
{
    static double gradient[CLIENTS][SIZE], dual[CLIENTS][SIZE], share[CLIENTS][SIZE];
    double prior[SIZE] = {0}, server[SIZE], total[SIZE] = {0};
    const double clients = CLIENTS, rho = 1.0 / clients, alpha = 1.0 / (1.0 + rho * clients), damping = 1.0;

    for (int i = 0; i < D; ++i) prior[D + i * D + i] = 0.5; /* mean 0, precision 0.5 I */
    memcpy(server, prior, sizeof prior);

#pragma omp parallel for
    for (int k = 0; k < CLIENTS; ++k) { /* what each client does on its own machine */
        add_rows(k * ROWS, (k + 1) * ROWS, -1.0, gradient[k]);
        for (int i = 0; i < SIZE; ++i) {
            const double client = badmm_round_client_map_f64(server[i], dual[k][i], gradient[k][i], rho);
            badmm_round_round_update_f64(dual[k][i], server[i], client, rho, damping, alpha, CLIENTS,
                                                 &dual[k][i], &share[k][i]);
        }
    }
    for (int i = 0; i < SIZE; ++i) { /* one all-reduce, then the server line */
        for (int k = 0; k < CLIENTS; ++k) total[i] += share[k][i];
        server[i] = badmm_round_server_update_f64(prior[i], total[i], alpha);
    }

    const double error = error_of(server, prior);
    printf("C: relative error after one round %.1e\n", error);
    if (!(error <= 1e-12)) {
        fprintf(stderr, "least_squares: expected the pooled solution to a relative 1e-12, got an error of %g\n", error);
        return 1;
    }
    return 0;
}
