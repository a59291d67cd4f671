/* The least-squares problem of the C, C++ and CUDA examples: deterministic rows (x, y), and a direct solver.
 *
 * Each client holds rows and the loss 1/2 sum (y - x.theta)^2 = 1/2 theta'H theta - b.theta. A full Gaussian's natural
 * parameter lambda = (precision * mean, precision) is one array of SIZE numbers, the matrix row by row. */
#ifndef LEAST_SQUARES_PROBLEM_H
#define LEAST_SQUARES_PROBLEM_H

#include <math.h>

enum { CLIENTS = 5, ROWS = 40, D = 12, SIZE = D + D * D }; /* ROWS a client */

static inline double feature(int row, int j) { return sin(0.37 * (row + 1) * (j + 1)); }

static inline double target(int row)
{
    double y = 0.1 * cos(3.0 * row);
    for (int j = 0; j < D; ++j) y += feature(row, j) * (j + 1) / (double)D;
    return y;
}

/* sum += sign * (b, H) of rows [first, last). */
static inline void add_rows(int first, int last, double sign, double *sum)
{
    for (int row = first; row < last; ++row)
        for (int i = 0; i < D; ++i) {
            sum[i] += sign * feature(row, i) * target(row);
            for (int j = 0; j < D; ++j) sum[D + i * D + j] += sign * feature(row, i) * feature(row, j);
        }
}

/* mean = S^-1 xi by a Cholesky factorisation, S = L L'. */
static inline void mean_of(const double *lambda, double *mean)
{
    double L[D][D];
    for (int i = 0; i < D; ++i) {
        double m = lambda[i];
        for (int j = 0; j <= i; ++j) {
            double s = lambda[D + i * D + j];
            for (int k = 0; k < j; ++k) s -= L[i][k] * L[j][k];
            L[i][j] = i == j ? sqrt(s) : s / L[j][j];
        }
        for (int k = 0; k < i; ++k) m -= L[i][k] * mean[k];
        mean[i] = m / L[i][i];
    }
    for (int i = D; i-- > 0;) {
        for (int k = i + 1; k < D; ++k) mean[i] -= L[k][i] * mean[k];
        mean[i] /= L[i][i];
    }
}

/* Largest difference relative to the largest entry. */
static inline double relative_error(const double *got, const double *expected, int count)
{
    double error = 0.0, scale = 0.0;
    for (int i = 0; i < count; ++i) {
        error = fmax(error, fabs(got[i] - expected[i]));
        scale = fmax(scale, fabs(expected[i]));
    }
    return error / scale;
}

/* How far lambda and its mean are from those of the pooled problem, relative to the largest entry. */
static inline double error_of(const double *lambda, const double *prior)
{
    double pooled[SIZE], mean[D], expected[D];
    for (int i = 0; i < SIZE; ++i) pooled[i] = prior[i];
    add_rows(0, CLIENTS * ROWS, 1.0, pooled);
    mean_of(lambda, mean);
    mean_of(pooled, expected);
    return fmax(relative_error(mean, expected, D), relative_error(lambda, pooled, SIZE));
}

#endif
