// Forward and backward passes of a stack of small perceptrons in single precision, one call for the whole stack.
//
// All three products of a layer are of one form (product.h):
//   y  (B, O) = x (B, I)   W^T (I, O)      W is (O, I): panels are transposed while they are packed
//   dx (B, I) = dy (B, O)  W   (O, I)
//   dW (O, I) = dy^T (O, B) x  (B, I)
// The output of a network with a single one is sixteen chains of multiply-adds. A large batch goes through all layers in
// blocks of rows.

#include "product.h"

template <int M>  // rows
static void dot_tile(long k, const float *x, long x_row, const float *w, float bias, float *y) {
    constexpr int W = CHAINS / VL;
    const long whole = k / CHAINS * CHAINS;
    Vec acc[M][W] = {};
    for (long i = 0; i < whole; i += CHAINS)
UNROLL(16)
        for (int m = 0; m < M; m++)
UNROLL(4)
            for (int j = 0; j < W; j++)
                acc[m][j] += ((const Vec *)(x + m * x_row + i))[j] * ((const Vec *)(w + i))[j];
    for (int m = 0; m < M; m++) {
        float sum[CHAINS];
        std::memcpy(sum, acc[m], sizeof sum);
        for (long i = whole; i < k; i++) sum[i - whole] += x[m * x_row + i] * w[i];
        y[m] = sum_of_chains(sum) + bias;
    }
}

// y (m) = x (m, k) w (k) + bias: a panel of one column would be nearly all zeros
static void dot(long m, long k, const float *x, long x_row, const float *w, float bias, float *y) {
    constexpr int M = VL / 2;
    long row = 0;
    for (; row + M <= m; row += M) dot_tile<M>(k, x + row * x_row, x_row, w, bias, y + row);
    for (; row < m; row++) dot_tile<1>(k, x + row * x_row, x_row, w, bias, y + row);
}

extern "C" void mlp_threads(long threads) { pool.threads = threads; }

// rows of one network's x through its layers. A null `hidden`: activations are not kept, but lie in `work`
static void forward(const Stack &s, const Block &rows, long batch, const float *weight, const float *x, long x_row,
                    float *hidden, float *work, float *panels, float *out) {
    const float *in = x + rows.first * x_row;
    for (long k = 0; k < s.layers; k++) {
        const long n_in = s.sizes[k], n_out = s.sizes[k + 1];
        const bool last = k == s.layers - 1;
        const float *bias = weight + s.weight(k);
        float *y = last ? out + rows.first * n_out : hidden ? hidden + rows.first * n_out : work;
        if (last && n_out == 1) return dot(rows.rows, n_in, in, x_row, weight, *bias, y);
        linear(rows.rows, n_in, n_out, in, x_row, weight, bias, last ? BIAS : BIAS_RELU, y,
               {panels, !rows.one, rows.later});
        in = y, x_row = n_out, weight = bias + s.bias(k), work += rows.rows * n_out;
        if (hidden) hidden += batch * n_out;
        if (!rows.one) panels += Panels::floats(n_out, n_in);
    }
}

// out (slices, batch, O), and hidden activations, by slice, then layer: (batch, units). A null `hidden`: not kept
extern "C" void mlp_forward(const Stack *stack, long batch, const float *x, long x_slice, long x_row, float *hidden,
                            float *out) {
    const Stack &s = *stack;
    const long blocks = Block::count(batch), room = s.panels(blocks > 1);
    pool.run(s.slices, [&](long i) {
        float *panels = scratch(room + s.hidden() * std::min(batch, ROWS));
        for (long k = 0; k < blocks; k++)
            forward(s, Block::nth(k, batch), batch, s.flat + i * s.length, x + i * x_slice, x_row,
                    hidden ? hidden + i * s.hidden() * batch : nullptr, panels + room, panels,
                    out + i * batch * s.sizes[s.layers]);
    });
}

// the same rows back: `grad` is of one network's output, `grads` its parameters', which go on from the block before
static void backward(const Stack &s, const Block &rows, long batch, const float *weights, const float *x, long x_row,
                     const float *hidden, const float *grad, float *grads, float *grad_x, float *strip) {
    const long most = std::min(batch, ROWS), size = padded(s.widest() * most);
    float *work = strip + Panels::floats(NR, std::max(s.widest(), most)), *panels = work + 2 * size;
    const float *g = grad + rows.first * s.sizes[s.layers], *h = hidden + s.hidden() * batch;
    long at = s.length;
    for (long k = s.layers - 1; k >= 0; k--) {
        const long n_in = s.sizes[k], n_out = s.sizes[k + 1];
        at -= s.weight(k) + s.bias(k);
        if (k > 0) h -= batch * n_in;
        const float *in = k > 0 ? h + rows.first * n_in : x + rows.first * x_row;
        if (grads)
            gradients(rows.rows, n_in, n_out, g, in, k > 0 ? n_in : x_row, grads + at, grads + at + s.weight(k), strip,
                      rows.later);
        if (k == 0 && !grad_x) return;
        float *to = k > 0 ? work + k % 2 * size : grad_x + rows.first * n_in;
        gradient_of_x(rows.rows, n_in, n_out, g, weights + at, k > 0 ? in : nullptr, to,
                      {rows.one ? strip : panels, !rows.one, rows.later});
        if (!rows.one) panels += Panels::floats(n_in, n_out);
        g = to;
    }
}

// From d loss / d out, grad (slices, batch, O): the gradients of the parameters and of x. Where null: not asked for
extern "C" void mlp_backward(const Stack *stack, long batch, const float *x, long x_slice, long x_row,
                             const float *hidden, const float *grad, float *grads, float *grad_x) {
    const Stack &s = *stack;
    const long blocks = Block::count(batch), most = std::min(batch, ROWS), widest = s.widest();
    pool.run(s.slices, [&](long i) {
        float *strip = scratch(Panels::floats(NR, std::max(widest, most)) + 2 * padded(widest * most) +
                               s.panels(blocks > 1));
        for (long k = 0; k < blocks; k++)
            backward(s, Block::nth(k, batch), batch, s.flat + i * s.length, x + i * x_slice, x_row,
                     hidden + i * s.hidden() * batch, grad + i * batch * s.sizes[s.layers],
                     grads ? grads + i * s.length : nullptr, grad_x ? grad_x + i * batch * s.sizes[0] : nullptr, strip);
    });
}

// One row at a time, for acting. Sums are in the order of numpy's products on most CPUs (OpenBLAS 0.3, its kernels for
// Haswell and AMD's Zen), where they were computed before: a run has the same bits on every CPU, and those of old runs.

typedef float Eight __attribute__((vector_size(8 * sizeof(float)), aligned(sizeof(float)), may_alias));

// a product that the compiler does not fuse with the sum that follows
static float rounded(float a, float b) {
    float product = a * b;
    asm("" : "+m"(product));
    return product;
}

static float sum_of_eight(const float *s) {
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

// Four rows of W. Eight chains of multiply-adds each, which begin with four numbers alone where k / 4 is odd; what is left
// of k comes last.
static void four_rows(long k, const float *w, const float *x, float *y) {
    const long whole = k / 4 * 4, odd = whole % 8;
    Eight acc[4] = {};
    for (int m = 0; m < 4; m++)
        for (long i = 0; i < odd; i++) acc[m][i] = rounded(w[m * k + i], x[i]);
    for (long i = odd; i < whole; i += 8)
UNROLL(4)
        for (int m = 0; m < 4; m++) acc[m] += *(const Eight *)(w + m * k + i) * *(const Eight *)(x + i);
    for (int m = 0; m < 4; m++) {
        float sum[8], rest = 0;
        std::memcpy(sum, acc + m, sizeof sum);
        for (long i = whole; i < k; i++) rest += rounded(w[m * k + i], x[i]);
        y[m] = sum_of_eight(sum) + rest;
    }
}

// One of the rows that are no four: the same in so many chains, of products and sums.
static float one_row(long k, const float *w, const float *x, int chains) {
    const long whole = k / 4 * 4, odd = whole % chains;
    float sum[8] = {}, rest = 0;
    for (long i = 0; i < odd; i++) sum[i] = rounded(w[i], x[i]);
    for (long i = odd; i < whole; i += chains)
        for (int j = 0; j < chains; j++) sum[j] += rounded(w[i + j], x[i + j]);
    for (long i = whole; i < k; i++) rest += rounded(w[i], x[i]);
    return sum_of_eight(sum) + rest;
}

// The row of a layer with a single output: 32 chains; what is left of k is summed in double precision.
static float only_row(long k, const float *w, const float *x) {
    const long whole = k / 32 * 32;
    Eight acc[4] = {};
    for (long i = 0; i < whole; i += 32)
UNROLL(4)
        for (int m = 0; m < 4; m++) acc[m] += *(const Eight *)(w + i + 8 * m) * *(const Eight *)(x + i + 8 * m);
    float sum[4], half[4];
    for (int j = 0; j < 4; j++) {
        for (int m = 0; m < 4; m++) half[m] = acc[m][j] + acc[m][j + 4];
        sum[j] = (half[0] + half[1]) + (half[2] + half[3]);
    }
    double rest = 0;
    for (long i = whole; i < k; i++) rest += rounded(w[i], x[i]);
    return rest + ((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// out (slices, O) for x (slices, I)
extern "C" void mlp_act(const Stack *stack, const float *x, float *out) {
    const Stack &s = *stack;
    const long widest = padded(s.widest());
    float *h = scratch(2 * widest);
    for (long i = 0; i < s.slices; i++) {
        const float *w = s.flat + i * s.length, *in = x + i * s.sizes[0];
        for (long k = 0; k < s.layers; k++) {
            const long n_in = s.sizes[k], n_out = s.sizes[k + 1];
            const bool last = k == s.layers - 1;
            const float *bias = w + s.weight(k);
            float *y = last ? out + i * n_out : h + k % 2 * widest;
            long j = 0;
            if (n_out == 1) y[j++] = only_row(n_in, w, in);
            for (; j + 4 <= n_out; j += 4) four_rows(n_in, w + j * n_in, in, y + j);
            for (; j < n_out; j++) y[j] = one_row(n_in, w + j * n_in, in, j == n_out - 1 && n_out % 2 ? 8 : 4);
            for (j = 0; j < n_out; j++) {
                y[j] += bias[j];
                if (!last) y[j] = y[j] < 0 ? 0 : y[j];  // a NaN stays
            }
            in = y, w = bias + s.bias(k);
        }
    }
}
