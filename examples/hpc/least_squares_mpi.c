/* Federated least squares in one round of Bayesian ADMM, from C over MPI; what it computes is said in least_squares.c.
 *
 *     mpicc -std=c99 -O2 $(python -m badmm_kernels --includes) least_squares_mpi.c -o least_squares_mpi -lm
 *     mpiexec -n 4 ./least_squares_mpi
 *
 * Each rank holds the rows of its own clients and adds up their terms; one Allreduce of one lambda is all that crosses. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "badmm/round.h"
#include "problem.h"

/* A problem of this rank alone would leave the others waiting: the run ends on all of them. */
static void fail(const char *what, double value)
{
    fprintf(stderr, "least_squares: %s, got %g\n", what, value);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

int main(int argc, char **argv)
{
    double prior[SIZE] = {0}, server[SIZE], total[SIZE] = {0};
    const double clients = CLIENTS, rho = 1.0 / clients, alpha = 1.0 / (1.0 + rho * clients), damping = 1.0;
    int rank, ranks;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);

    for (int i = 0; i < D; ++i) prior[D + i * D + i] = 0.5; /* mean 0, precision 0.5 I */
    memcpy(server, prior, sizeof prior);

    for (int k = CLIENTS * rank / ranks; k < CLIENTS * (rank + 1) / ranks; ++k) { /* the clients that live here */
        double gradient[SIZE] = {0}, dual[SIZE] = {0}, share;
        add_rows(k * ROWS, (k + 1) * ROWS, -1.0, gradient);
        for (int i = 0; i < SIZE; ++i) {
            const double client = badmm_round_client_map_f64(server[i], dual[i], gradient[i], rho);
            badmm_round_round_update_f64(dual[i], server[i], client, rho, damping, alpha, CLIENTS, &dual[i],
                                                 &share);
            total[i] += share;
        }
    }
    MPI_Allreduce(MPI_IN_PLACE, total, SIZE, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < SIZE; ++i) server[i] = badmm_round_server_update_f64(prior[i], total[i], alpha);

    const double error = error_of(server, prior); /* on every rank: all have the result */
    if (!(error <= 1e-12)) fail("expected the pooled solution to a relative 1e-12", error);
    if (rank == 0) printf("C, MPI, %d ranks: relative error after one round %.1e\n", ranks, error);
    MPI_Finalize();
    return 0;
}
