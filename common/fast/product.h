// Products of small matrices in single precision, and the threads that share out a stack's networks.
//
// C = A B with B packed into panels of NV vectors, so that one tile kernel serves all products of a layer. An element is
// one chain of multiply-adds over k from first to last, whatever the width of vectors, the place of the row or the number
// of threads: the bits depend on none of these. Chains go on from block to block where a batch is cut into blocks of rows,
// which stay in the cache from one product to the next.

#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <numeric>
#include <thread>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int VL = 16, MR = 14;  // floats of a vector, rows of a tile: MR * NV sums and NV + 1 more fit 32 registers
#elif defined(__AVX__)
constexpr int VL = 8, MR = 6;
#elif defined(__aarch64__)
constexpr int VL = 4, MR = 14;
#else
constexpr int VL = 4, MR = 6;
#endif
#if defined(__clang__)
#define UNROLL(n) _Pragma("unroll")
#else
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif

constexpr int NV = 2, NR = NV * VL;  // vectors and columns of a panel
constexpr long ROWS = 256;           // rows of a block, at most

typedef float Vec __attribute__((vector_size(VL * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int Index __attribute__((vector_size(VL * sizeof(int))));

// what is done to a tile before it is stored: nothing, add a bias, add a bias and cut at 0, zero where `extra` is <= 0
enum Finish { PLAIN, BIAS, BIAS_RELU, MASK };

struct Product {
    long m, n, k;
    const float *a; long a_row, a_k;  // A[i][k] is a[i * a_row + k * a_k]
    float *c; long c_row;
    Finish finish; const float *extra; long extra_row;  // bias (n), or mask (m, n)
    bool more = false;  // sums go on from what C holds
};

template <int M, int W>  // M rows, W vectors
static void tile(const Product &p, long row, long col, const float *panel) {
    const long cols = std::min<long>(W * VL, p.n - col);
    float *c = p.c + row * p.c_row + col;
    Vec acc[M][W] = {};
    if (p.more) {
UNROLL(16)
        for (int i = 0; i < M; i++) {
            float held[W * VL] = {};
            std::memcpy(held, c + i * p.c_row, sizeof(float) * cols);
UNROLL(4)
            for (int j = 0; j < W; j++) acc[i][j] = ((const Vec *)held)[j];
        }
    }
    const float *a = p.a + row * p.a_row;
    const long a_row = p.a_row, a_k = p.a_k;
    for (long k = 0; k < p.k; k++, a += a_k, panel += W * VL) {
        Vec b[W];
UNROLL(4)
        for (int j = 0; j < W; j++) b[j] = ((const Vec *)panel)[j];
UNROLL(16)
        for (int i = 0; i < M; i++) {
            const float s = a[i * a_row];
UNROLL(4)
            for (int j = 0; j < W; j++) acc[i][j] += s * b[j];
        }
    }
    if (cols == W * VL) {
UNROLL(16)
        for (int i = 0; i < M; i++)
UNROLL(4)
            for (int j = 0; j < W; j++) {
                Vec v = acc[i][j];
                if (p.finish == BIAS || p.finish == BIAS_RELU) v += ((const Vec *)(p.extra + col))[j];
                if (p.finish == BIAS_RELU) v = v < 0 ? Vec{} : v;  // a NaN stays
                if (p.finish == MASK) v = ((const Vec *)(p.extra + (row + i) * p.extra_row + col))[j] <= 0 ? Vec{} : v;
                ((Vec *)(c + i * p.c_row))[j] = v;
            }
        return;
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < cols; j++) {
            float v = acc[i][j / VL][j % VL];
            if (p.finish == BIAS || p.finish == BIAS_RELU) v += p.extra[col + j];
            if (p.finish == BIAS_RELU) v = v < 0 ? 0 : v;
            if (p.finish == MASK) v = p.extra[(row + i) * p.extra_row + col + j] <= 0 ? 0 : v;
            c[i * p.c_row + j] = v;
        }
}

template <int M, int W>
static void rows(int m, const Product &p, long row, long col, const float *panel) {
    if constexpr (M > 0) m == M ? tile<M, W>(p, row, col, panel) : rows<M - 1, W>(m, p, row, col, panel);
}

// a (VL, VL) block, transposed
static void transpose(const float *from, long from_row, float *to, long to_row) {
#if defined(__AVX512F__)  // rows 4 apart are loaded side by side, which leaves two rounds within four lanes of 4 x 4
    for (int i = 0; i < VL; i += 4, from += 4, to += 4 * to_row) {
        __m512 v[4];
        for (int j = 0; j < 4; j++) {
            const float *row = from + j * from_row;
            v[j] = _mm512_castps128_ps512(_mm_loadu_ps(row));
            v[j] = _mm512_insertf32x4(v[j], _mm_loadu_ps(row + 4 * from_row), 1);
            v[j] = _mm512_insertf32x4(v[j], _mm_loadu_ps(row + 8 * from_row), 2);
            v[j] = _mm512_insertf32x4(v[j], _mm_loadu_ps(row + 12 * from_row), 3);
        }
        const __m512 low = _mm512_unpacklo_ps(v[0], v[1]), high = _mm512_unpackhi_ps(v[0], v[1]);
        const __m512 low2 = _mm512_unpacklo_ps(v[2], v[3]), high2 = _mm512_unpackhi_ps(v[2], v[3]);
        _mm512_storeu_ps(to, _mm512_shuffle_ps(low, low2, _MM_SHUFFLE(1, 0, 1, 0)));
        _mm512_storeu_ps(to + to_row, _mm512_shuffle_ps(low, low2, _MM_SHUFFLE(3, 2, 3, 2)));
        _mm512_storeu_ps(to + 2 * to_row, _mm512_shuffle_ps(high, high2, _MM_SHUFFLE(1, 0, 1, 0)));
        _mm512_storeu_ps(to + 3 * to_row, _mm512_shuffle_ps(high, high2, _MM_SHUFFLE(3, 2, 3, 2)));
    }
#elif defined(__clang__)  // has no shuffle by a vector
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < VL; j++) to[j * to_row + i] = from[i * from_row + j];
#else  // in registers: log2(VL) rounds of exchanges between rows `step` apart
    Vec v[VL];
UNROLL(16)
    for (int i = 0; i < VL; i++) v[i] = *(const Vec *)(from + i * from_row);
UNROLL(4)
    for (int step = 1; step < VL; step *= 2) {
        Index low, high;
UNROLL(16)
        for (int j = 0; j < VL; j++) {
            low[j] = j & step ? VL + j - step : j;
            high[j] = j & step ? VL + j : j + step;
        }
UNROLL(16)
        for (int i = 0; i < VL; i++)
            if (!(i & step)) {
                const Vec x = v[i], y = v[i + step];
                v[i] = __builtin_shuffle(x, y, low);
                v[i + step] = __builtin_shuffle(x, y, high);
            }
    }
UNROLL(16)
    for (int i = 0; i < VL; i++) *(Vec *)(to + i * to_row) = v[i];
#endif
}

// columns col .. col + width - 1 of B (k, n), zeros past its last. B[k][j] is b[k * b_k + j * b_col]; one stride is 1
template <int W>  // vectors of a row
static void pack(long n, long k, const float *b, long b_k, long b_col, long col, float *panel) {
    constexpr int width = W * VL;
    const int cols = std::min<long>(width, n - col);
    b += col * b_col;
    if (cols < width) std::memset(panel, 0, sizeof(float) * k * width);
    if (b_col == 1) {
        if (cols == width)
            for (long i = 0; i < k; i++) std::memcpy(panel + i * width, b + i * b_k, sizeof(float) * width);
        else
            for (long i = 0; i < k; i++)
                for (int j = 0; j < cols; j++) panel[i * width + j] = b[i * b_k + j];
        return;
    }
    for (int j = 0; j < cols; j += VL) {
        long i = 0;
        if (j + VL <= cols)
            for (; i + VL <= k; i += VL) transpose(b + j * b_col + i, b_col, panel + i * width + j, width);
        for (; i < k; i++)
            for (int jj = j; jj < std::min(j + VL, cols); jj++) panel[i * width + jj] = b[jj * b_col + i];
    }
}

// reads memory in order, which the CPU foresees; the strides in which a panel is packed it does not
static void touch(const float *from, long floats) {
    for (long i = 0; i < floats; i += 16) (void)*(const volatile float *)(from + i);
}

// B as panels: in one place, each packed when its turn comes, or with `keep` side by side, for the products that follow
struct Panels {
    float *memory;
    bool keep = false, packed = false;

    static long floats(long n, long k) { return (n + NR - 1) / NR * NR * k; }  // of a B (k, n)
};

// B[k][j] is b[k * b_k + j * b_col]; one stride is 1
static void multiply(const Product &p, const float *b, long b_k, long b_col, const Panels &panels) {
    const long blocks = (p.m + MR - 1) / MR;
    if (p.n == 0) return;  // B may lie nowhere
    if (!panels.packed && b_col == 1 && p.k > 0) touch(b, (p.k - 1) * b_k + p.n);
    for (long col = 0; col < p.n; col += NR) {
        const int width = p.n - col > VL ? NR : VL;
        float *panel = panels.memory + (panels.keep ? col * p.k : 0);
        if (!panels.packed) {
            if (b_k == 1) touch(b + col * b_col, std::min<long>(width, p.n - col) * b_col);
            const auto packed = width == NR ? pack<NV> : pack<1>;
            packed(p.n, p.k, b, b_k, b_col, col, panel);
        }
        for (long i = 0; i < blocks; i++) {  // rows shared out evenly: no thin tile at the end
            const long row = p.m * i / blocks, m = p.m * (i + 1) / blocks - row;
            width == NR ? rows<MR, NV>(m, p, row, col, panel) : rows<MR, 1>(m, p, row, col, panel);
        }
    }
}

// y (n) = the sums of the columns of x (m, n), from first to last; with `more` they go on from y
template <int V>  // vectors of columns at a time
static long add_rows(long m, long n, long col, const float *x, float *y, bool more) {
    for (; col + V * VL <= n; col += V * VL) {
        Vec acc[V];
        std::memcpy(acc, (more ? y : x) + col, sizeof acc);
        for (long i = !more; i < m; i++)
UNROLL(16)
            for (int v = 0; v < V; v++) acc[v] += ((const Vec *)(x + i * n + col))[v];
        std::memcpy(y + col, acc, sizeof acc);
    }
    return col;
}

static void add_rows(long m, long n, const float *x, float *y, bool more) {
    long col = add_rows<16>(m, n, 0, x, y, more);
    col = add_rows<4>(m, n, col, x, y, more);
    col = add_rows<1>(m, n, col, x, y, more);
    for (; col < n; col++) {
        float sum = more ? y[col] : x[col];
        for (long i = !more; i < m; i++) sum += x[i * n + col];
        y[col] = sum;
    }
}

// A layer's three products, for W (n_out, n_in) and rows of x (m, n_in), x_row apart

// y (m, n_out) = x W^T + b
static void linear(long m, long n_in, long n_out, const float *x, long x_row, const float *weight, const float *bias,
                   Finish finish, float *y, const Panels &panels) {
    multiply({m, n_out, n_in, x, x_row, 1, y, n_out, finish, bias, 0}, weight, 1, n_in, panels);
}

// from dy (m, n_out): dW = dy^T x and db = sum of its rows, which with `more` go on from the rows before
static void gradients(long m, long n_in, long n_out, const float *dy, const float *x, long x_row, float *weight,
                      float *bias, float *panel, bool more) {
    multiply({n_out, n_in, m, dy, 1, n_out, weight, n_in, PLAIN, nullptr, 0, more}, x, x_row, 1, {panel});
    add_rows(m, n_out, dy, bias, more);
}

// dx (m, n_in) = dy W, zero where `mask` (m, n_in), if there is one, is <= 0
static void gradient_of_x(long m, long n_in, long n_out, const float *dy, const float *weight, const float *mask,
                          float *dx, const Panels &panels) {
    multiply({m, n_in, n_out, dy, n_out, 1, dx, n_in, mask ? MASK : PLAIN, mask, n_in}, weight, n_in, 1, panels);
}

// A block of rows of a batch
struct Block {
    long first, rows;
    bool one, later;  // the only one, not the first

    static long count(long batch) { return (batch + ROWS - 1) / ROWS; }
    static Block nth(long k, long batch) {
        const long n = count(batch), first = batch * k / n;
        return {first, batch * (k + 1) / n - first, n == 1, k > 0};
    }
};

constexpr int CHAINS = 16;  // of a sum that vectors add up, whatever their width

static float sum_of_chains(float *sum) {
    for (int half = CHAINS / 2; half; half /= 2)
        for (int j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0];
}

static long padded(long n) { return (n + 15) / 16 * 16; }  // ALIGN of nets.py

// nets.py's MLP: layer k's weight (sizes[k + 1], sizes[k]) and bias follow one another in a slice of `flat`
struct Stack {
    long slices, layers;
    const long *sizes;
    const float *flat;
    long length;  // floats of a slice

    long weight(long k) const { return padded(sizes[k] * sizes[k + 1]); }
    long bias(long k) const { return padded(sizes[k + 1]); }
    long hidden() const { return std::accumulate(sizes + 1, sizes + layers, 0L); }
    long widest() const { return *std::max_element(sizes, sizes + layers + 1); }
    long panels(bool all) const {  // floats of all layers' panels, either way round, or of the largest one
        long floats = 0;
        for (long k = 0; k < layers; k++)
            floats += std::max(Panels::floats(sizes[k], sizes[k + 1]), Panels::floats(sizes[k + 1], sizes[k]));
        return all ? floats : Panels::floats(NR, widest());
    }
};

// this thread's, at least that large
static float *scratch(long floats) {
    static thread_local struct Buffer {
        float *data = nullptr;
        long size = 0;
        ~Buffer() { std::free(data); }
    } buffer;
    if (buffer.size < floats) {
        std::free(buffer.data);
        buffer.size = padded(floats);
        buffer.data = (float *)std::aligned_alloc(64, sizeof(float) * buffer.size);
    }
    return buffer.data;
}

// Threads that wait for work beside the one that asks for it. Slices are shared out among them: none is split.
class Pool {
    std::mutex mutex;
    std::condition_variable begin, end;
    const std::function<void(long)> *task = nullptr;
    std::atomic<long> next{0};
    long count = 0, round = 0, busy = 0;

    void take() {
        for (long i; (i = next++) < count;) (*task)(i);
    }
    void work(long seen) {
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex);
            begin.wait(lock, [&] { return round != seen; });
            seen = round;
            lock.unlock();
            take();
            lock.lock();
            if (--busy == 0) end.notify_one();
        }
    }

  public:
    long threads = 1, workers = 0;

    void run(long n, const std::function<void(long)> &f) {
        if (threads < 2 || n < 2) {
            for (long i = 0; i < n; i++) f(i);
            return;
        }
        std::unique_lock<std::mutex> lock(mutex);
        for (; workers < threads - 1; workers++) std::thread(&Pool::work, this, round).detach();
        task = &f, count = n, next = 0, busy = workers, round++;
        lock.unlock();
        begin.notify_all();
        take();
        lock.lock();
        end.wait(lock, [&] { return busy == 0; });
    }
};
inline Pool &pool = *new Pool;  // never taken down: its threads wait for as long as the process lives

