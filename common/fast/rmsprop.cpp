// A step of RMSprop (Tieleman & Hinton 2012) for a stack of networks, each gradient clipped to a norm by itself.

#include "product.h"

static float norm(const float *x, long n) {
    constexpr int W = CHAINS / VL;
    Vec acc[W] = {};
    for (long i = 0; i + CHAINS <= n; i += CHAINS)
        for (int j = 0; j < W; j++) {
            const Vec v = ((const Vec *)(x + i))[j];
            acc[j] += v * v;
        }
    float sum[CHAINS];
    std::memcpy(sum, acc, sizeof sum);
    return __builtin_sqrtf(sum_of_chains(sum));
}

// grad, square_avg and flat: (slices, length), a multiple of 16 floats
extern "C" void rmsprop(long slices, long length, const float *grad, float *square_avg, float *flat, float lr, float alpha,
                        float eps, float clip) {
    pool.run(slices, [&](long i) {
        const float *g = grad + i * length, scale = std::min(clip / (norm(g, length) + 1e-6f), 1.0f);
        float *mean = square_avg + i * length, *x = flat + i * length;
        for (long k = 0; k < length; k++) {
            const float clipped = g[k] * scale;
            mean[k] += (1 - alpha) * (clipped * clipped - mean[k]);
            x[k] -= lr * clipped / (__builtin_sqrtf(mean[k]) + eps);
        }
    });
}
