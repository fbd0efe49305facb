// A list of operations on the elements of small arrays, one call for the whole list: a hundred calls by way of PyTorch
// take longer than their arithmetic. Each is one rounding an element, so that its bits are PyTorch's on every CPU.

#include <algorithm>

// in the order of elementwise.py's NAMES
enum {
    COPY, ADD, SUB, MUL, DIV, MINIMUM, MAXIMUM, NEG, ABS, AT_LEAST, CLAMP, LT, GT, LE, GE, EQ, AND, WHERE, NARROW
};

// elementwise.py's Operation: up to four dims, the last one innermost; strides are in elements, 0 where one is repeated
struct Operation {
    long code, wide;  // wide: of double precision
    long size[4];
    void *out;
    long to[4];
    const void *in[3];
    long from[3][4];
};

// out[m] = f(a[m], b[m], c[m]); the loops that the compiler makes vectors of are those with the common strides. Not
// inlined, as each of its two callers would be compiled with them
template <class Out, class A, class B, class F>
[[gnu::noinline]] static void row(long n, Out *out, long to, const A *a, long fa, const B *b, long fb, const B *c, long fc,
                                  F f) {
    if (to == 1 && fa == 1 && fb == 1 && fc == 1)
        for (long m = 0; m < n; m++) out[m] = f(a[m], b[m], c[m]);
    else if (to == 1 && fa == 1 && fb == 0)
        for (long m = 0; m < n; m++) out[m] = f(a[m], *b, c[m * fc]);
    else if (to == 1 && fa == 0 && fb == 1 && fc == 1)
        for (long m = 0; m < n; m++) out[m] = f(*a, b[m], c[m]);
    else
        for (long m = 0; m < n; m++) out[m * to] = f(a[m * fa], b[m * fb], c[m * fc]);
}

constexpr long ROOM = 1024;

// Rows of n elements from the k-th on, one after another: where they lie, or copied to `room`. Of a row that is repeated
// the copy for k = 0 serves
template <class T>
static const T *together(const T *x, long k, long rows, long n, long row, long step, T *room) {
    if (step == 1 && row == n) return x + k * n;
    if (row == 0 && k > 0) return room;
    for (long i = 0; i < rows; i++)
        for (long m = 0; m < n; m++) room[i * n + m] = x[(k + i) * row + m * step];
    return room;
}

// Rows that are shorter than a vector, as of actions; those of `out` follow on each other
template <class Out, class A, class B, class F>
static void plane(const Operation &o, Out *out, const A *a, const B *b, const B *c, F f) {
    const long n = o.size[3], most = ROOM / n;
    const auto part = [&](auto *x, int i, long k, long rows, auto *room) {
        return together(x, k, rows, n, o.from[i][2], o.from[i][3], room);
    };
    A room_a[ROOM];
    B room_b[ROOM], room_c[ROOM];
    for (long k = 0; k < o.size[2]; k += most) {
        const long rows = std::min(most, o.size[2] - k);
        const A *x = part(a, 0, k, rows, room_a);
        const B *y = part(b, 1, k, rows, room_b), *z = y;
        if (o.in[2] != o.in[0]) z = part(c, 2, k, rows, room_c);
        row(rows * n, out + k * n, 1, x, 1, y, 1, z, 1, f);
    }
}

// out[i] = f(a[i], b[i], c[i]); an operation of fewer inputs is given the first one again
template <class Out, class A, class B, class F>
static void each(const Operation &o, F f) {
    for (long i = 0; i < o.size[0]; i++)
        for (long j = 0; j < o.size[1]; j++) {
            const auto start = [&](const long *steps) { return i * steps[0] + j * steps[1]; };
            Out *out = (Out *)o.out + start(o.to);
            const A *a = (const A *)o.in[0] + start(o.from[0]);
            const B *b = (const B *)o.in[1] + start(o.from[1]);
            const B *c = (const B *)o.in[2] + start(o.from[2]);
            if (o.size[3] > 0 && o.size[3] < 16 && o.to[3] == 1 && o.to[2] == o.size[3]) {
                plane(o, out, a, b, c, f);
                continue;
            }
            for (long k = 0; k < o.size[2]; k++)
                row(o.size[3], out + k * o.to[2], o.to[3], a + k * o.from[0][2], o.from[0][3], b + k * o.from[1][2],
                    o.from[1][3], c + k * o.from[2][2], o.from[2][3], f);
        }
}

// of two equal numbers, as 0 and -0, minimum and maximum give the second; a NaN stays one
static void single(const Operation &o) {
    const auto floats = [&](auto f) { each<float, float, float>(o, f); };
    const auto truths = [&](auto f) { each<bool, float, float>(o, f); };
    switch (o.code) {
    case COPY: floats([](float a, float, float) { return a; }); break;
    case ADD: floats([](float a, float b, float) { return a + b; }); break;
    case SUB: floats([](float a, float b, float) { return a - b; }); break;
    case MUL: floats([](float a, float b, float) { return a * b; }); break;
    case DIV: floats([](float a, float b, float) { return a / b; }); break;
    case MINIMUM: floats([](float a, float b, float) { return a < b || a != a ? a : b; }); break;
    case MAXIMUM: floats([](float a, float b, float) { return a > b || a != a ? a : b; }); break;
    case NEG: floats([](float a, float, float) { return -a; }); break;
    case ABS: floats([](float a, float, float) { return __builtin_fabsf(a); }); break;
    case AT_LEAST: floats([](float a, float low, float) { return a < low ? low : a; }); break;
    case CLAMP: floats([](float a, float low, float high) { return a < low ? low : a > high ? high : a; }); break;
    case LT: truths([](float a, float b, float) { return a < b; }); break;
    case GT: truths([](float a, float b, float) { return a > b; }); break;
    case LE: truths([](float a, float b, float) { return a <= b; }); break;
    case GE: truths([](float a, float b, float) { return a >= b; }); break;
    case EQ: truths([](float a, float b, float) { return a == b; }); break;
    case AND: each<bool, bool, bool>(o, [](bool a, bool b, bool) { return a && b; }); break;
    case WHERE: each<float, bool, float>(o, [](bool a, float b, float c) { return a ? b : c; }); break;
    }
}

// the few of double precision, an element after another: they are counts of steps, one for each agent
static void wide(const Operation &o) {
    for (long i = 0; i < o.size[0] * o.size[1] * o.size[2] * o.size[3]; i++) {
        long at[4] = {}, left = i;
        for (int dim = 3; dim >= 0; left /= o.size[dim--])
            for (int k = 0; k < 4; k++) at[k] += left % o.size[dim] * (k ? o.from[k - 1] : o.to)[dim];
        double *out = (double *)o.out + at[0];
        const double *x[3];
        for (int k = 0; k < 3; k++) x[k] = (const double *)o.in[k] + at[k + 1];
        switch (o.code) {
        case COPY: *out = *x[0]; break;
        case ADD: *out = *x[0] + *x[1]; break;
        case SUB: *out = *x[0] - *x[1]; break;
        case MUL: *out = *x[0] * *x[1]; break;
        case DIV: *out = *x[0] / *x[1]; break;
        case WHERE: *out = ((const bool *)o.in[0])[at[1]] ? *x[1] : *x[2]; break;
        case NARROW: ((float *)o.out)[at[0]] = float(*x[0]); break;
        }
    }
}

extern "C" void elementwise(const Operation *list, long count) {
    for (const Operation *o = list; o < list + count; o++) o->wide ? wide(*o) : single(*o);
}
