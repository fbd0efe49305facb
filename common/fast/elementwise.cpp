// A list of operations on the elements of small arrays, one call for the whole list: a hundred calls by way of PyTorch
// take longer than their arithmetic. Each is one rounding an element, so that its bits are PyTorch's on every CPU.

// in the order of elementwise.py's NAMES
enum { COPY, ADD, SUB, MUL, DIV, MINIMUM, MAXIMUM, NEG, ABS, AT_LEAST, CLAMP, LT, GT, WHERE };

// elementwise.py's Operation: up to four dims, the last one innermost; strides are in elements, 0 where one is repeated
struct Operation {
    long code;
    long size[4];
    void *out;
    long to[4];
    const void *in[3];
    long from[3][4];
};

// out[i] = f(a[i], b[i], c[i]); an operation of fewer inputs is given the first one again
template <class Out, class A, class B, class F>
static void each(const Operation &o, F f) {
    const long n = o.size[3], to = o.to[3], fa = o.from[0][3], fb = o.from[1][3], fc = o.from[2][3];
    for (long i = 0; i < o.size[0]; i++)
        for (long j = 0; j < o.size[1]; j++)
            for (long k = 0; k < o.size[2]; k++) {
                const auto start = [&](const long *steps) { return i * steps[0] + j * steps[1] + k * steps[2]; };
                Out *out = (Out *)o.out + start(o.to);
                const A *a = (const A *)o.in[0] + start(o.from[0]);
                const B *b = (const B *)o.in[1] + start(o.from[1]);
                const B *c = (const B *)o.in[2] + start(o.from[2]);
                if (to == 1 && fa == 1 && fb == 1 && fc == 1)
                    for (long m = 0; m < n; m++) out[m] = f(a[m], b[m], c[m]);
                else if (to == 1 && fa == 1 && fb == 0)
                    for (long m = 0; m < n; m++) out[m] = f(a[m], *b, c[m * fc]);
                else
                    for (long m = 0; m < n; m++) out[m * to] = f(a[m * fa], b[m * fb], c[m * fc]);
            }
}

// of two equal numbers, as 0 and -0, minimum and maximum give the second; a NaN stays one
extern "C" void elementwise(const Operation *list, long count) {
    for (const Operation *o = list; o < list + count; o++) {
        const auto floats = [&](auto f) { each<float, float, float>(*o, f); };
        const auto truths = [&](auto f) { each<bool, float, float>(*o, f); };
        switch (o->code) {
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
        case WHERE: each<float, bool, float>(*o, [](bool a, float b, float c) { return a ? b : c; }); break;
        }
    }
}
