/* badmm/matrix.h: dense routines of one d x d matrix, for the functions of the full Gaussian in badmm/arrays.
 *
 * Matrices are symmetric, or lower triangular with zeros above, stored row by row; both triangles are read and written.
 * Define BADMM_LAPACK to factor and to find eigenvalues by LAPACK (dpotrf, dsyev; link it), which is faster from d of
 * about 50; without it the routines are self-contained. Systems are solved, never inverted, unless the inverse is the
 * result. */
#ifndef BADMM_MATRIX_H
#define BADMM_MATRIX_H

#include <math.h>
#include <stddef.h>

#if defined(__cplusplus)
#define BADMM_CAST(type, value) static_cast<type>(value)
#else
#define BADMM_CAST(type, value) ((type)(value))
#endif
#define BADMM_NEAR 0.4 /* divergences whose eigenvalues are all below it are summed term by term */

/* The place of an argument at fault is returned, its element's index stored. */
static inline int badmm_fault(int place, size_t index, size_t *at)
{
    if (at) *at = index;
    return place;
}

/* The first index at which sign * value is outside (bound, infinity), or count. */
static inline size_t badmm_find_outside_f64(size_t count, const double *values, double sign, double bound)
{
    int outside = 0;
    for (size_t i = 0; i < count; ++i) outside |= !(bound < sign * values[i] && sign * values[i] < HUGE_VAL);
    if (!outside) return count;
    for (size_t i = 0; i < count; ++i)
        if (!(bound < sign * values[i] && sign * values[i] < HUGE_VAL)) return i;
    return count;
}

static inline size_t badmm_find_outside_f32(size_t count, const float *values, double sign, double bound)
{
    int outside = 0;
    for (size_t i = 0; i < count; ++i) {
        const double value = sign * BADMM_CAST(double, values[i]);
        outside |= !(bound < value && value < HUGE_VAL);
    }
    if (!outside) return count;
    for (size_t i = 0; i < count; ++i) {
        const double value = sign * BADMM_CAST(double, values[i]);
        if (!(bound < value && value < HUGE_VAL)) return i;
    }
    return count;
}

/* total + value; what rounding loses is added to *lost (Neumaier, ZAMM 1974). */
static inline double badmm_add(double total, double value, double *lost)
{
    const double sum = total + value;
    *lost += fabs(total) >= fabs(value) ? (total - sum) + value : (value - sum) + total;
    return sum;
}

#if defined(BADMM_LAPACK)
#if defined(__cplusplus)
extern "C" {
#endif
extern void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
extern void dsyev_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
                   double *work, const int *lwork, int *info);
#if defined(__cplusplus)
}
#endif
#endif

/* L with S = L L^T; 1 unless S is positive definite. */
static inline int badmm_matrix_cholesky(size_t d, const double *S, double *L)
{
#if defined(BADMM_LAPACK)
    const int n = BADMM_CAST(int, d);
    int info = 0;
    for (size_t i = 0; i < d; ++i)
        for (size_t j = 0; j < d; ++j) L[i * d + j] = j <= i ? S[i * d + j] : 0.0;
    if (n > 0) dpotrf_("U", &n, L, &n, &info); /* by columns, what is stored row by row is the transpose */
    return info != 0;
#else
    for (size_t i = 0; i < d; ++i) {
        double *const row = L + i * d;
        for (size_t j = 0; j <= i; ++j) {
            const double *const other = L + j * d;
            double sum = S[i * d + j];
            for (size_t k = 0; k < j; ++k) sum -= row[k] * other[k];
            if (j < i) {
                row[j] = sum / other[j];
            } else {
                if (!(sum > 0.0 && sum < HUGE_VAL)) return 1;
                row[i] = sqrt(sum);
            }
        }
        for (size_t j = i + 1; j < d; ++j) row[j] = 0.0;
    }
    return 0;
#endif
}

/* L^-1 v; x may be v. */
static inline void badmm_matrix_solve_lower(size_t d, const double *L, const double *v, double *x)
{
    for (size_t i = 0; i < d; ++i) {
        double sum = v[i];
        for (size_t k = 0; k < i; ++k) sum -= L[i * d + k] * x[k];
        x[i] = sum / L[i * d + i];
    }
}

/* L^-T v; x may be v. */
static inline void badmm_matrix_solve_upper(size_t d, const double *L, const double *v, double *x)
{
    for (size_t i = 0; i < d; ++i) x[i] = v[i];
    for (size_t i = d; i-- > 0;) {
        x[i] /= L[i * d + i];
        for (size_t k = 0; k < i; ++k) x[k] -= L[i * d + k] * x[i];
    }
}

/* S^-1 v with S = L L^T; x may be v. */
static inline void badmm_matrix_solve(size_t d, const double *L, const double *v, double *x)
{
    badmm_matrix_solve_lower(d, L, v, x);
    badmm_matrix_solve_upper(d, L, x, x);
}

/* S^-1 with S = L L^T, column by column, symmetric to the last bit. */
static inline void badmm_matrix_inverse(size_t d, const double *L, double *inverse)
{
    for (size_t j = 0; j < d; ++j) {
        double *const row = inverse + j * d; /* the column j, which symmetry makes the row j */
        for (size_t i = 0; i < d; ++i) row[i] = i == j ? 1.0 : 0.0;
        badmm_matrix_solve(d, L, row, row);
    }
    for (size_t i = 0; i < d; ++i)
        for (size_t j = 0; j < i; ++j) inverse[j * d + i] = inverse[i * d + j];
}

/* log det S = 2 sum log L_ii. */
static inline double badmm_matrix_log_det(size_t d, const double *L)
{
    double total = 0.0, lost = 0.0;
    for (size_t i = 0; i < d; ++i) total = badmm_add(total, log(L[i * d + i]), &lost);
    return 2.0 * (total + lost);
}

/* A v. */
static inline void badmm_matrix_matvec(size_t d, const double *A, const double *v, double *x)
{
    for (size_t i = 0; i < d; ++i) {
        double sum = 0.0;
        for (size_t k = 0; k < d; ++k) sum += A[i * d + k] * v[k];
        x[i] = sum;
    }
}

/* v v^T. */
static inline void badmm_matrix_outer(size_t d, const double *v, double *A)
{
    for (size_t i = 0; i < d; ++i)
        for (size_t j = 0; j < d; ++j) A[i * d + j] = v[i] * v[j];
}

/* u^T v. */
static inline double badmm_matrix_dot(size_t d, const double *u, const double *v)
{
    double sum = 0.0;
    for (size_t i = 0; i < d; ++i) sum += u[i] * v[i];
    return sum;
}

/* The eigenvalues e (d) of L^-1 D L^-T; `white` (d x d, then 3 d) is work space. By cyclic Jacobi rotations without LAPACK
 * (Golub and Van Loan, Matrix computations, section 8.5). */
static inline void badmm_matrix_whitened_eigenvalues(size_t d, const double *L, const double *D, double *white, double *e)
{
    for (size_t i = 0; i < d; ++i) badmm_matrix_solve_lower(d, L, D + i * d, white + i * d); /* rows of D L^-T */
    for (size_t j = 0; j < d; ++j) {
        for (size_t i = 0; i < d; ++i) e[i] = white[i * d + j];
        badmm_matrix_solve_lower(d, L, e, e);
        for (size_t i = 0; i < d; ++i) white[i * d + j] = e[i];
    }
    for (size_t i = 0; i < d; ++i)
        for (size_t j = 0; j < i; ++j) {
            const double mean = 0.5 * (white[i * d + j] + white[j * d + i]);
            white[i * d + j] = white[j * d + i] = mean;
        }
#if defined(BADMM_LAPACK)
    const int n = BADMM_CAST(int, d), length = 3 * n;
    int info = 0;
    if (n > 0) dsyev_("N", "U", &n, white, &n, e, white + d * d, &length, &info);
    if (info == 0) return;
#endif
    for (int sweep = 0; sweep < 60; ++sweep) {
        double off = 0.0, all = 0.0;
        for (size_t i = 0; i < d; ++i) {
            all += white[i * d + i] * white[i * d + i];
            for (size_t j = 0; j < i; ++j) off += white[i * d + j] * white[i * d + j];
        }
        if (!(off > 1e-34 * all)) break;
        for (size_t p = 0; p + 1 < d; ++p)
            for (size_t q = p + 1; q < d; ++q) {
                const double entry = white[p * d + q];
                if (entry == 0.0) continue;
                const double half = (white[q * d + q] - white[p * d + p]) / (2.0 * entry);
                const double t = (half >= 0.0 ? 1.0 : -1.0) / (fabs(half) + hypot(half, 1.0));
                const double c = 1.0 / sqrt(t * t + 1.0), s = t * c;
                for (size_t k = 0; k < d; ++k) { /* rows, then columns */
                    const double a = white[p * d + k], b = white[q * d + k];
                    white[p * d + k] = c * a - s * b;
                    white[q * d + k] = s * a + c * b;
                }
                for (size_t k = 0; k < d; ++k) {
                    const double a = white[k * d + p], b = white[k * d + q];
                    white[k * d + p] = c * a - s * b;
                    white[k * d + q] = s * a + c * b;
                }
            }
    }
    for (size_t i = 0; i < d; ++i) e[i] = white[i * d + i];
}

static inline double badmm_matrix_largest(size_t d, const double *e)
{
    double largest = 0.0;
    for (size_t i = 0; i < d; ++i) largest = fabs(e[i]) > largest ? fabs(e[i]) : largest;
    return largest;
}

/* sum phi(e_i), phi(x) = x - log(1 + x), for the eigenvalues e of L_q^-1 (S_p - S_q) L_q^-T; by log-determinants where
 * 1 + e_i may lose its digits. */
static inline double badmm_matrix_ratio_divergence(size_t d, double (*phi)(double), const double *e, const double *L_q,
                                            const double *L_p)
{
    const int near = badmm_matrix_largest(d, e) < BADMM_NEAR;
    double total = 0.0, lost = 0.0;
    for (size_t i = 0; i < d; ++i) {
        total = badmm_add(total, near ? phi(e[i]) : e[i], &lost);
        if (!near) total = badmm_add(total, -2.0 * (log(L_p[i * d + i]) - log(L_q[i * d + i])), &lost);
    }
    return total + lost;
}

/* S_p (m_q - m_p): as (xi_q - xi_p) + D m_q, without cancellation, where all |e_i| are small. */
static inline void badmm_matrix_mean_gap(size_t d, const double *e, const double *xi_q, const double *xi_p, const double *D,
                                  const double *S_p, const double *m_q, double *gap)
{
    const int near = badmm_matrix_largest(d, e) < BADMM_NEAR;
    badmm_matrix_matvec(d, near ? D : S_p, m_q, gap);
    for (size_t i = 0; i < d; ++i) gap[i] = near ? (xi_q[i] - xi_p[i]) + gap[i] : gap[i] - xi_p[i];
}

#undef BADMM_CAST
#undef BADMM_NEAR

#endif /* BADMM_MATRIX_H */
