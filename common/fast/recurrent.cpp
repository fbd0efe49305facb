// Forward and backward passes of a stack of recurrent networks in single precision, over whole episodes.
//
// A network is a linear layer and ReLU, a GRU cell (Cho et al. 2014, PyTorch's form) and a linear layer:
//   g = W_ih relu(W x + b) + b_ih          o = W_hh h + b_hh
//   r, z = sigmoid(g + o)    n = tanh(g_n + r o_n)    h' = n + z (h - n)    q = W_q h' + b_q
// Rows of x, h and q are those of time 0, then of time 1, ...: running[t] of them at time t, which never grows. Row k of
// a time goes on from row k of the time before. A network's weights are packed once for all times; all that a step reads
// and writes stays in the cache.

#include "product.h"

// sigmoid and tanh within 2 units in the last place, by arithmetic alone: their bits are the same on every CPU with
// fused multiply-adds. Coefficients are those of Cephes' expf and tanhf (Moshier 1989).

static Vec exponential(Vec x) {  // NaN stays
    const Vec low = Vec{} - 87.0f, high = Vec{} + 87.0f, magic = Vec{} + 12582912.0f;  // 1.5 * 2^23: rounds to integers
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Vec shifted = x * 1.44269504f + magic, k = shifted - magic;
    const Vec f = (x - k * 0.693359375f) + k * 2.12194440e-4f;  // x - k log 2
    Vec p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    const Vec f2 = f * f;
    p = (p * f2 + f) + 1.0f;
    return p * (Vec)(((Index)shifted - (Index)magic + 127) << 23);  // times 2^k
}

static Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(-x)); }

static Vec tangens(Vec x) {
    const Vec size = x < 0 ? -x : x, e = exponential(size * -2.0f), x2 = x * x;
    const Vec far = (1.0f - e) / (1.0f + e);
    Vec p = x2 * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * x2 - 5.37397155531e-2f;
    p = p * x2 + 1.33314422036e-1f;
    p = p * x2 - 3.33332819422e-1f;
    const Vec p2 = p * x2, near = p2 * x + x;
    return size < 0.625f ? near : x < 0 ? -far : far;
}

// `n` numbers, or a whole vector where there are more
static Vec load(const float *from, long n) {
    if (n >= VL) return *(const Vec *)from;
    Vec v = {};
    std::memcpy(&v, from, sizeof(float) * n);
    return v;
}

static void store(float *to, long n, Vec v) {
    if (n >= VL) *(Vec *)to = v;
    else std::memcpy(to, &v, sizeof(float) * n);
}

// kernels.py's struct of that name. A slice of `flat` holds W (H, I), b, W_ih (3H, H), b_ih, W_hh (3H, H),
// b_hh, W_q (A, H), b_q
struct RecurrentStack {
    long slices, I, H, A;
    const float *flat;
    long length;  // floats of a slice
};

// where a slice's parameters, or their gradients, lie
template <class Float>
struct Parts {
    Float *first, *first_bias, *ih, *ih_bias, *hh, *hh_bias, *last, *last_bias;

    Parts(const RecurrentStack &net, Float *slice) {
        const long I = net.I, H = net.H, A = net.A;
        Float **parts[] = {&first, &first_bias, &ih, &ih_bias, &hh, &hh_bias, &last, &last_bias};
        const long sizes[] = {H * I, H, 3 * H * H, 3 * H, 3 * H * H, 3 * H, A * H, A};
        for (int k = 0; k < 8; slice += padded(sizes[k++])) *parts[k] = slice;
    }
};

// The gradients of a layer from all rows, block by block
static void all_gradients(long rows, long n_in, long n_out, const float *dy, const float *x, long x_row, float *weight,
                          float *bias, float *panel) {
    for (long k = 0; k < Block::count(rows); k++) {
        const Block b = Block::nth(k, rows);
        gradients(b.rows, n_in, n_out, dy + b.first * n_out, x + b.first * x_row, x_row, weight, bias, panel, b.later);
    }
}

// One time of m rows: h' from gates g (m, 3H), o (m, 3H) and h (m, H), and r, z, n, o_n (m, 4H) for the way back
static void cell(long m, long H, const float *g, const float *o, const float *h, float *kept, float *after) {
    for (long row = 0; row < m; row++, g += 3 * H, o += 3 * H, h += H, kept += 4 * H, after += H)
        for (long j = 0; j < H; j += VL) {
            const long left = H - j;
            const Vec r = sigmoid(load(g + j, left) + load(o + j, left));
            const Vec z = sigmoid(load(g + H + j, left) + load(o + H + j, left));
            const Vec own = load(o + 2 * H + j, left), n = tangens(r * own + load(g + 2 * H + j, left));
            store(kept + j, left, r);
            store(kept + H + j, left, z);
            store(kept + 2 * H + j, left, n);
            store(kept + 3 * H + j, left, own);
            store(after + j, left, z * (load(h + j, left) - n) + n);
        }
}

// The same on the way back: from dh' = dh + grad the gradients of o and of g, r's and z's the same, and z dh' in dh
static void cell_back(long m, long H, const float *grad, const float *kept, const float *h, float *d_o, float *d_g,
                      float *dh) {
    for (long row = 0; row < m; row++, grad += H, kept += 4 * H, h += H, d_o += 3 * H, d_g += 3 * H, dh += H)
        for (long j = 0; j < H; j += VL) {
            const long left = H - j;
            const Vec d = load(dh + j, left) + load(grad + j, left), r = load(kept + j, left);
            const Vec z = load(kept + H + j, left), n = load(kept + 2 * H + j, left), own = load(kept + 3 * H + j, left);
            const Vec d_n = d * (1.0f - z) * (1.0f - n * n), d_r = d_n * own * r * (1.0f - r);
            const Vec d_z = d * (load(h + j, left) - n) * z * (1.0f - z);
            for (float *to : {d_o, d_g}) {
                store(to + j, left, d_r);
                store(to + H + j, left, d_z);
            }
            store(d_o + 2 * H + j, left, d_n * r);
            store(d_g + 2 * H + j, left, d_n);
            store(dh + j, left, d * z);
        }
}

// h (slices, R, H) and q (slices, R, A) of x (slices, R, I), from hidden states `start` (slices, running[0], H). Kept for
// the way back, where not null: the first layer's activations `hidden` (slices, R, H), and `cells` (slices, R, 4H)
extern "C" void recurrent_forward(const RecurrentStack *net, long times, const long *running, const float *x, long x_slice,
                                  long x_row, const float *start, float *hidden, float *cells, float *h, float *q) {
    const long I = net->I, H = net->H, A = net->A, B = running[0], R = std::accumulate(running, running + times, 0L);
    const long strip = Panels::floats(NR, std::max(I, H)), panels = padded(Panels::floats(3 * H, H));
    pool.run(net->slices, [&](long i) {
        const Parts<const float> p(*net, net->flat + i * net->length);
        float *panel = scratch(strip + panels + R * 4 * H + B * 7 * H), *packed = panel + strip, *first = packed + panels;
        float *gates = first + R * H, *o = gates + R * 3 * H, *spare = o + B * 3 * H;
        if (hidden) first = hidden + i * R * H;
        linear(R, I, H, x + i * x_slice, x_row, p.first, p.first_bias, BIAS_RELU, first, {panel});
        linear(R, H, 3 * H, first, H, p.ih, p.ih_bias, BIAS, gates, {panel});
        const float *before = start + i * B * H;
        float *after = h + i * R * H, *kept = cells ? cells + i * R * 4 * H : spare;
        for (long t = 0; t < times; t++) {
            const long m = running[t];
            linear(m, H, 3 * H, before, H, p.hh, p.hh_bias, BIAS, o, {packed, true, t > 0});
            cell(m, H, gates, o, before, kept, after);
            before = after, after += m * H, gates += m * 3 * H;
            if (cells) kept += m * 4 * H;
        }
        linear(R, H, A, h + i * R * H, H, p.last, p.last_bias, BIAS, q + i * R * A, {panel});
    });
}

// From d loss / d h and d loss / d q, either of which may be null: the gradients of the parameters, `grads` (slices,
// length), zeros where nothing is written, and if asked of x (slices, R, I). `start` is as on the way forward; it has none
extern "C" void recurrent_backward(const RecurrentStack *net, long times, const long *running, const float *x, long x_slice,
                                   long x_row, const float *start, const float *hidden, const float *cells,
                                   const float *h, const float *grad_h, const float *grad_q, float *grads,
                                   float *grad_x) {
    const long I = net->I, H = net->H, A = net->A, B = running[0], R = std::accumulate(running, running + times, 0L);
    const long strip = Panels::floats(NR, std::max({I, 3 * H, A, ROWS})), panels = padded(Panels::floats(H, 3 * H));
    pool.run(net->slices, [&](long i) {
        const Parts<const float> p(*net, net->flat + i * net->length);
        const Parts<float> d(*net, grads + i * net->length);
        float *panel = scratch(strip + panels + R * 9 * H + B * 2 * H), *packed = panel + strip;
        float *d_h = packed + panels, *d_o = d_h + R * H, *d_g = d_o + R * 3 * H, *before = d_g + R * 3 * H;
        float *d_first = before + R * H, *dh = d_first + R * H, *through = dh + B * H;
        const float *hs = h + i * R * H;
        // the last layer, and what each hidden state is told by it
        if (grad_q) {
            const float *dq = grad_q + i * R * A;
            all_gradients(R, H, A, dq, hs, H, d.last, d.last_bias, panel);
            gradient_of_x(R, H, A, dq, p.last, nullptr, d_h, {panel});
        } else std::memset(d_h, 0, sizeof(float) * R * H);
        if (grad_h)
            for (long j = 0; j < R * H; j++) d_h[j] += grad_h[i * R * H + j];
        // the state that each row started from
        std::memcpy(before, start + i * B * H, sizeof(float) * B * H);
        for (long t = 1, at = B, last = 0; t < times; last += running[t - 1], at += running[t++])
            std::memcpy(before + at * H, hs + last * H, sizeof(float) * running[t] * H);
        // back through time
        std::memset(dh, 0, sizeof(float) * B * H);
        const float *kept = cells + i * R * 4 * H;
        for (long t = times - 1, at = R; t >= 0; t--) {
            const long m = running[t];
            at -= m;
            cell_back(m, H, d_h + at * H, kept + at * 4 * H, before + at * H, d_o + at * 3 * H, d_g + at * 3 * H, dh);
            gradient_of_x(m, H, 3 * H, d_o + at * 3 * H, p.hh, nullptr, through, {packed, true, t < times - 1});
            for (long j = 0; j < m * H; j++) dh[j] += through[j];
        }
        // the weights, over all times at once
        all_gradients(R, H, 3 * H, d_o, before, H, d.hh, d.hh_bias, panel);
        all_gradients(R, H, 3 * H, d_g, hidden + i * R * H, H, d.ih, d.ih_bias, panel);
        gradient_of_x(R, H, 3 * H, d_g, p.ih, hidden + i * R * H, d_first, {panel});
        all_gradients(R, I, H, d_first, x + i * x_slice, x_row, d.first, d.first_bias, panel);
        if (grad_x) gradient_of_x(R, I, H, d_first, p.first, nullptr, grad_x + i * R * I, {panel});
    });
}
