// The functions of cuBLAS, cuSOLVER and cuRAND that CuPy calls for the full Gaussian and the benchmark: column-major, on
// the stream of the handle, failures not reported where CUDA does not report them. Plain loops; slow and simple.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <vector>

namespace {

enum { SUCCESS, UNSUPPORTED = 15 };
enum { FLOAT = 0, DOUBLE = 1 };  // cudaDataType

struct Handle {
    cudaStream_t stream = nullptr;
    std::mt19937_64 words;
};

int later(Handle *handle, std::function<void()> work)
{
    auto *kept = new std::function<void()>(std::move(work));
    return cudaLaunchHostFunc(
        handle->stream,
        [](void *argument) {
            auto *called = static_cast<std::function<void()> *>(argument);
            (*called)();
            delete called;
        },
        kept);
}

template <class T> struct Matrix {
    T *at;
    std::int64_t leading;
    bool transposed = false;
    T &operator()(int i, int j) const { return transposed ? at[j + i * leading] : at[i + j * leading]; }
};

// C = alpha op(A) op(B) + beta C
template <class T> void gemm(int m, int n, int k, T alpha, Matrix<const T> a, Matrix<const T> b, T beta, Matrix<T> c)
{
    for (int j = 0; j < n; ++j)
        for (int i = 0; i < m; ++i) {
            T sum = 0;
            for (int l = 0; l < k; ++l) sum = std::fma(a(i, l), b(l, j), sum);
            c(i, j) = alpha * sum + (beta == 0 ? T(0) : beta * c(i, j));
        }
}

// op(A) X = alpha B, X over B
template <class T> void trsm(bool lower, bool unit, int m, int n, T alpha, Matrix<const T> a, Matrix<T> b)
{
    for (int column = 0; column < n; ++column)
        for (int step = 0; step < m; ++step) {
            const int i = lower ? step : m - 1 - step;
            T rest = alpha * b(i, column);
            for (int before = 0; before < step; ++before) {
                const int j = lower ? before : m - 1 - before;
                rest -= a(i, j) * b(j, column);
            }
            b(i, column) = unit ? rest : rest / a(i, i);
        }
}

// A = L Lᵀ of the lower triangle (or of the upper one, transposed); 0, or the order of the first minor that is not
// positive
template <class T> int potrf(int n, Matrix<T> a)
{
    for (int j = 0; j < n; ++j)
        for (int i = j; i < n; ++i) {
            T rest = a(i, j);
            for (int k = 0; k < j; ++k) rest -= a(i, k) * a(j, k);
            if (i == j && !(rest > 0)) return j + 1;
            a(i, j) = i == j ? std::sqrt(rest) : rest / a(j, j);
        }
    return 0;
}

// Eigenvalues by Jacobi's rotations in long double, ascending; NaN where the matrix is not finite.
template <class T> void eigenvalues(bool lower, int n, Matrix<const T> a, T *values)
{
    typedef long double Wide;
    std::vector<Wide> memory((std::size_t)n * n);
    const Matrix<Wide> m{memory.data(), n};
    bool finite = true;
    for (int i = 0; i < n; ++i)
        for (int j = 0; j <= i; ++j) {
            m(i, j) = m(j, i) = lower ? a(i, j) : a(j, i);
            finite = finite && std::isfinite(m(i, j));
        }
    for (int sweep = 0; finite && sweep < 60; ++sweep) {
        Wide off = 0;
        for (int p = 0; p < n; ++p)
            for (int q = p + 1; q < n; ++q) {
                if (m(p, q) == 0) continue;
                off += m(p, q) * m(p, q);
                const Wide ratio = (m(q, q) - m(p, p)) / (2 * m(p, q));
                const Wide t = (ratio < 0 ? -1 : 1) / (std::abs(ratio) + std::sqrt(ratio * ratio + 1));
                const Wide c = 1 / std::sqrt(t * t + 1), s = t * c;
                for (int turn = 0; turn < 2; ++turn)  // columns, then rows
                    for (int k = 0; k < n; ++k) {
                        Wide &x = turn ? m(p, k) : m(k, p), &y = turn ? m(q, k) : m(k, q);
                        const Wide old = x;
                        x = c * old - s * y;
                        y = s * old + c * y;
                    }
            }
        if (off == 0) break;
    }
    for (int i = 0; i < n; ++i) values[i] = finite ? (T)m(i, i) : std::numeric_limits<T>::quiet_NaN();
    std::sort(values, values + n);
}

// alpha and beta are the host's and are read at the call
template <class T>
int gemms(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int lda, std::int64_t sa,
          const void *b, int ldb, std::int64_t sb, const void *beta, void *c, int ldc, std::int64_t sc, int count)
{
    const T by = *(const T *)alpha, keep = *(const T *)beta;
    return later(h, [=] {
        for (int q = 0; q < count; ++q)
            gemm<T>(m, n, k, by, {(const T *)a + q * sa, lda, ta != 0}, {(const T *)b + q * sb, ldb, tb != 0}, keep,
                    {(T *)c + q * sc, ldc});
    });
}

}  // namespace

extern "C" {

int cublasCreate_v2(Handle **h) { return *h = new Handle, SUCCESS; }
int cublasDestroy_v2(Handle *h) { return delete h, SUCCESS; }
int cublasSetStream_v2(Handle *h, cudaStream_t stream) { return h->stream = stream, SUCCESS; }
int cublasGetStream_v2(Handle *h, cudaStream_t *stream) { return *stream = h->stream, SUCCESS; }
int cublasSetPointerMode_v2(Handle *, int) { return SUCCESS; }
int cublasSetMathMode(Handle *, int) { return SUCCESS; }
int cublasGetMathMode(Handle *, int *mode) { return *mode = 0, SUCCESS; }  // asked by cuBLAS' own header

int cublasGemmStridedBatchedEx(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at,
                               int lda, long long sa, const void *b, int bt, int ldb, long long sb, const void *beta,
                               void *c, int ct, int ldc, long long sc, int count, int, int)
{
    if (at != bt || at != ct || (at != FLOAT && at != DOUBLE)) return UNSUPPORTED;
    const auto run = at == FLOAT ? gemms<float> : gemms<double>;
    return run(h, ta, tb, m, n, k, alpha, a, lda, sa, b, ldb, sb, beta, c, ldc, sc, count);
}
int cublasGemmEx(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda,
                 const void *b, int bt, int ldb, const void *beta, void *c, int ct, int ldc, int compute, int algorithm)
{
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta, c, ct, ldc, 0, 1,
                                      compute, algorithm);
}

int cusolverDnCreate(Handle **h) { return *h = new Handle, SUCCESS; }
int cusolverDnDestroy(Handle *h) { return delete h, SUCCESS; }
int cusolverDnSetStream(Handle *h, cudaStream_t stream) { return h->stream = stream, SUCCESS; }
int cusolverDnGetStream(Handle *h, cudaStream_t *stream) { return *stream = h->stream, SUCCESS; }
int cusolverDnCreateParams(void **p) { return *p = new int, SUCCESS; }
int cusolverDnDestroyParams(void *p) { return delete (int *)p, SUCCESS; }
int cusolverDnCreateSyevjInfo(void **p) { return *p = new int, SUCCESS; }
int cusolverDnDestroySyevjInfo(void *p) { return delete (int *)p, SUCCESS; }
int cusolverGetProperty(int which, int *value) { return *value = which == 0 ? 12 : 0, SUCCESS; }

#define BOTH(L, T)                                                                                                      \
    int cublas##L##gemmBatched(Handle *h, int ta, int tb, int m, int n, int k, const T *alpha, const T *const a[],      \
                               int lda, const T *const b[], int ldb, const T *beta, T *const c[], int ldc, int count)   \
    {                                                                                                                   \
        const T by = *alpha, keep = *beta;                                                                              \
        return later(h, [=] {                                                                                           \
            for (int q = 0; q < count; ++q)                                                                             \
                gemm<T>(m, n, k, by, {a[q], lda, ta != 0}, {b[q], ldb, tb != 0}, keep, {c[q], ldc});                    \
        });                                                                                                             \
    }                                                                                                                   \
    int cublas##L##trsmBatched(Handle *h, int side, int upper, int trans, int unit, int m, int n, const T *alpha,       \
                               const T *const a[], int lda, T *const b[], int ldb, int count)                           \
    {                                                                                                                   \
        if (side) return UNSUPPORTED;                                                                                   \
        const T by = *alpha;                                                                                            \
        return later(h, [=] {                                                                                           \
            for (int q = 0; q < count; ++q)                                                                             \
                trsm<T>(!upper != (trans != 0), unit, m, n, by, {a[q], lda, trans != 0}, {b[q], ldb});                  \
        });                                                                                                             \
    }                                                                                                                   \
    int cublas##L##trsm_v2(Handle *h, int side, int upper, int trans, int unit, int m, int n, const T *alpha,           \
                           const T *a, int lda, T *b, int ldb)                                                          \
    {                                                                                                                   \
        if (side) return UNSUPPORTED;                                                                                   \
        const T by = *alpha;                                                                                            \
        return later(h, [=] { trsm<T>(!upper != (trans != 0), unit, m, n, by, {a, lda, trans != 0}, {b, ldb}); });      \
    }                                                                                                                   \
    int cusolverDn##L##potrf_bufferSize(Handle *, int, int n, T *, int, int *size) { return *size = n, SUCCESS; }       \
    int cusolverDn##L##potrf(Handle *h, int upper, int n, T *a, int lda, T *, int, int *info)                           \
    {                                                                                                                   \
        return later(h, [=] { *info = potrf<T>(n, {a, lda, upper != 0}); });                                            \
    }                                                                                                                   \
    int cusolverDn##L##potrfBatched(Handle *h, int upper, int n, T *a[], int lda, int *info, int count)                 \
    {                                                                                                                   \
        return later(h, [=] {                                                                                           \
            for (int q = 0; q < count; ++q) info[q] = potrf<T>(n, {a[q], lda, upper != 0});                             \
        });                                                                                                             \
    }                                                                                                                   \
    int cusolverDn##L##syevjBatched_bufferSize(Handle *, int, int, int n, const T *, int, const T *, int *size, void *, \
                                               int)                                                                     \
    {                                                                                                                   \
        return *size = n, SUCCESS;                                                                                      \
    }                                                                                                                   \
    int cusolverDn##L##syevjBatched(Handle *h, int vectors, int upper, int n, T *a, int lda, T *w, T *, int, int *info, \
                                    void *, int count)                                                                  \
    {                                                                                                                   \
        if (vectors) return UNSUPPORTED;                                                                                \
        return later(h, [=] {                                                                                           \
            for (std::int64_t q = 0; q < count; ++q) {                                                                  \
                eigenvalues<T>(!upper, n, {a + q * lda * n, lda}, w + q * n);                                           \
                info[q] = 0;                                                                                            \
            }                                                                                                           \
        });                                                                                                             \
    }                                                                                                                   \
    int curandGenerateNormal##L(Handle *h, T *out, size_t count, T mean, T deviation)                                   \
    {                                                                                                                   \
        return later(h, [=] {                                                                                           \
            std::normal_distribution<T> draw(mean, deviation);                                                          \
            for (size_t k = 0; k < count; ++k) out[k] = draw(h->words);                                                 \
        });                                                                                                             \
    }
BOTH(S, float)
BOTH(D, double)

int cusolverDnXsyevd_bufferSize(Handle *, void *, int, int, std::int64_t, int, const void *, std::int64_t, int,
                                const void *, int, size_t *device, size_t *host)
{
    return *device = *host = 1, SUCCESS;
}
int cusolverDnXsyevd(Handle *h, void *, int vectors, int upper, std::int64_t n, int type, void *a, std::int64_t lda, int,
                     void *w, int, void *, size_t, void *, size_t, int *info)
{
    if (vectors || (type != FLOAT && type != DOUBLE)) return UNSUPPORTED;
    return later(h, [=] {
        if (type == FLOAT) eigenvalues<float>(!upper, n, {(float *)a, lda}, (float *)w);
        else eigenvalues<double>(!upper, n, {(double *)a, lda}, (double *)w);
        *info = 0;
    });
}

int curandCreateGenerator(Handle **h, int) { return *h = new Handle, SUCCESS; }
int curandDestroyGenerator(Handle *h) { return delete h, SUCCESS; }
int curandSetStream(Handle *h, cudaStream_t stream) { return h->stream = stream, SUCCESS; }
int curandSetPseudoRandomGeneratorSeed(Handle *h, unsigned long long seed) { return h->words.seed(seed), SUCCESS; }
int curandSetGeneratorOffset(Handle *, unsigned long long) { return SUCCESS; }
int curandGenerateNormal(Handle *h, float *out, size_t count, float mean, float deviation)
{
    return curandGenerateNormalS(h, out, count, mean, deviation);
}
int curandGenerateNormalDouble(Handle *h, double *out, size_t count, double mean, double deviation)
{
    return curandGenerateNormalD(h, out, count, mean, deviation);
}

}  // extern "C"
