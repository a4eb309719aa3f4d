/* The parts of a layer that are no matrix product, each in one pass over memory (chapter 13).

   Every function has a readable twin in Python, named above it, and computes the same numbers
   (tests/test_native.py). Arrays are float32 unless said otherwise, the last axis is contiguous,
   "ld" is the distance between two rows, "threads" how many may work. Work is shared and sums are
   taken in a fixed order: the same threads, the same bits. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define SIMD PRAGMA(omp simd)
#define SUM(x) PRAGMA(omp simd reduction(+ : x))
#define MAX(x) PRAGMA(omp simd reduction(max : x))
#define PARALLEL(numbers) PRAGMA(omp parallel num_threads(threads) if (numbers > SMALL))
#define SMALL 8192 /* numbers: less work than this is not worth waking another thread */
#define BLOCK 32   /* rows that are worked on together, so that their square roots overlap */

/* Short rows of some lengths vectorize better by half. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define NARROW __attribute__((noinline, target("prefer-vector-width=256")))
#else
#define NARROW
#endif

/* Calls F(c), with c a constant where that lets the compiler unroll a short row. */
#define KNOWN(c, F) \
    switch (c) { \
        case 4: F(4); break; \
        case 8: F(8); break; \
        case 16: F(16); break; \
        case 32: F(32); break; \
        case 64: F(64); break; \
        default: F(c); \
    }

/* e^x for x <= 0, within 4 units of the last place: 2^k e^r, |r| < ln(2)/2, e^r by the polynomial
   of Cephes; 0 below -88. */
INLINE float expo(float x) {
    float k = rintf(x * 1.44269504f);
    float r = x - k * 0.693147181f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t exponent = (int32_t)k;
    exponent = exponent > -127 ? exponent : -127;
    int32_t bits = (exponent + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

INLINE float sigmoid(float x) {
    float e = expo(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

INLINE float hyperbolic_tangent(float x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

/* The items [*lo, *hi) of n that fall to this thread. */
INLINE void share(long n, long *lo, long *hi) {
    long parts = omp_get_num_threads(), me = omp_get_thread_num();
    *lo = n * me / parts;
    *hi = n * (me + 1) / parts;
}

/* --- silu(x / sqrt(mean x^2 + eps) * scale): networks.RMSNorm, then SiLU ---------------------- */

/* 1 / sqrt(mean x^2 + eps) of up to BLOCK rows. */
INLINE void inverse_rms(int rows, int c, const float *x, long ldx, float eps, float *inv) {
    for (int i = 0; i < rows; i++) {
        float sum = 0;
        SUM(sum) for (int j = 0; j < c; j++) sum += x[i * ldx + j] * x[i * ldx + j];
        inv[i] = sum;
    }
    SIMD for (int i = 0; i < rows; i++) inv[i] = 1.0f / sqrtf(inv[i] / c + eps);
}

INLINE void rms_silu_rows(
    long n, int c, const float *x, long ldx, const float *scale, float eps, float *y, long ldy) {
    float inv[BLOCK];
    for (long start = 0; start < n; start += BLOCK) {
        int rows = n - start < BLOCK ? n - start : BLOCK;
        inverse_rms(rows, c, x + start * ldx, ldx, eps, inv);
        for (int i = 0; i < rows; i++) {
            const float *a = x + (start + i) * ldx;
            float *out = y + (start + i) * ldy;
            SIMD for (int j = 0; j < c; j++) {
                float unit = a[j] * inv[i] * scale[j];
                out[j] = unit * sigmoid(unit);
            }
        }
    }
}

INLINE void rms_silu_backward_rows(
    long n, int c, const float *dy, long lddy, const float *x, long ldx, const float *scale,
    float eps, float *dx, long lddx, float *dscale) {
    float inv[BLOCK], t[c], block[c];
    for (long start = 0; start < n; start += BLOCK) { /* sums of sums lose fewer digits */
        int rows = n - start < BLOCK ? n - start : BLOCK;
        inverse_rms(rows, c, x + start * ldx, ldx, eps, inv);
        for (int j = 0; j < c; j++) block[j] = 0;
        for (int i = 0; i < rows; i++) {
            const float *a = x + (start + i) * ldx, *g = dy + (start + i) * lddy;
            float *d = dx + (start + i) * lddx, dot = 0;
            SUM(dot) for (int j = 0; j < c; j++) {
                float unit = a[j] * inv[i], y = unit * scale[j], s = sigmoid(y);
                float slope = g[j] * s * (1.0f + y * (1.0f - s));
                block[j] += slope * unit;
                t[j] = slope * scale[j];
                dot += t[j] * unit;
            }
            float mean = dot / c * inv[i];
            SIMD for (int j = 0; j < c; j++) d[j] = (t[j] - a[j] * mean) * inv[i];
        }
        for (int j = 0; j < c; j++) dscale[j] += block[j];
    }
}

NARROW static void rms_silu_narrow(
    long n, int c, const float *x, long ldx, const float *scale, float eps, float *y, long ldy) {
    if (c == 24) rms_silu_rows(n, 24, x, ldx, scale, eps, y, ldy);
    else if (c == 8) rms_silu_rows(n, 8, x, ldx, scale, eps, y, ldy);
    else rms_silu_rows(n, c, x, ldx, scale, eps, y, ldy);
}

NARROW static void rms_silu_backward_narrow(
    long n, int c, const float *dy, long lddy, const float *x, long ldx, const float *scale,
    float eps, float *dx, long lddx, float *dscale) {
#define F(k) rms_silu_backward_rows(n, k, dy, lddy, x, ldx, scale, eps, dx, lddx, dscale)
    if (c == 24) F(24);
    else if (c == 8) F(8);
    else F(c);
#undef F
}

void rms_silu(
    int threads, long n, int c, const float *x, long ldx, const float *scale, float eps, float *y,
    long ldy) {
    PARALLEL(n * c) {
        long lo, hi;
        share(n, &lo, &hi);
        const float *a = x + lo * ldx;
        float *out = y + lo * ldy;
#define F(k) rms_silu_rows(hi - lo, k, a, ldx, scale, eps, out, ldy)
        if (c % 16) rms_silu_narrow(hi - lo, c, a, ldx, scale, eps, out, ldy);
        else KNOWN(c, F)
#undef F
    }
}

/* dscale [threads,c] is added to: a row for each thread. */
void rms_silu_backward(
    int threads, long n, int c, const float *dy, long lddy, const float *x, long ldx,
    const float *scale, float eps, float *dx, long lddx, float *dscale) {
    PARALLEL(n * c) {
        long lo, hi;
        share(n, &lo, &hi);
        float *mine = dscale + omp_get_thread_num() * (long)c;
        const float *g = dy + lo * lddy, *a = x + lo * ldx;
        float *d = dx + lo * lddx;
#define F(k) rms_silu_backward_rows(hi - lo, k, g, lddy, a, ldx, scale, eps, d, lddx, mine)
        if (c % 16)
            rms_silu_backward_narrow(hi - lo, c, g, lddy, a, ldx, scale, eps, d, lddx, mine);
        else KNOWN(c, F)
#undef F
    }
}

/* --- the gated update: networks.gates -------------------------------------------------------- */

/* pre [n,g,3,w] and bias [g,3,w] hold reset, candidate and update; h and out are [n,g*w]. */
void gates(
    int threads, long n, int g, int w, const float *pre, const float *bias, const float *h,
    long ldh, float *out, long ldo) {
    PARALLEL(3 * n * g * w) {
        long lo, hi;
        share(n * g, &lo, &hi);
        for (long i = lo; i < hi; i++) {
            const float *x = pre + 3 * w * i, *b = bias + i % g * 3 * w;
            const float *old = h + i / g * ldh + i % g * w;
            float *new = out + i / g * ldo + i % g * w;
            SIMD for (int j = 0; j < w; j++) {
                float reset = sigmoid(x[j] + b[j]);
                float candidate = hyperbolic_tangent(reset * (x[w + j] + b[w + j]));
                float update = sigmoid(x[2 * w + j] + b[2 * w + j] - 1.0f);
                new[j] = update * candidate + (1.0f - update) * old[j];
            }
        }
    }
}

void gates_backward(
    int threads, long n, int g, int w, const float *dout, long lddo, const float *pre,
    const float *bias, const float *h, long ldh, float *dpre, float *dh, long lddh) {
    PARALLEL(3 * n * g * w) {
        long lo, hi;
        share(n * g, &lo, &hi);
        for (long i = lo; i < hi; i++) {
            const float *x = pre + 3 * w * i, *b = bias + i % g * 3 * w;
            const float *old = h + i / g * ldh + i % g * w, *d = dout + i / g * lddo + i % g * w;
            float *dx = dpre + 3 * w * i, *dold = dh + i / g * lddh + i % g * w;
            SIMD for (int j = 0; j < w; j++) {
                float inner = x[w + j] + b[w + j];
                float reset = sigmoid(x[j] + b[j]);
                float candidate = hyperbolic_tangent(reset * inner);
                float update = sigmoid(x[2 * w + j] + b[2 * w + j] - 1.0f);
                float slope = d[j] * update * (1.0f - candidate * candidate);
                dx[j] = slope * inner * reset * (1.0f - reset);
                dx[w + j] = slope * reset;
                dx[2 * w + j] = d[j] * (candidate - old[j]) * update * (1.0f - update);
                dold[j] = d[j] * (1.0f - update);
            }
        }
    }
}

/* --- dice: distributions.OneHots -------------------------------------------------------------- */

/* s = softmax(x) [k]; returns ln of the sum that divides, for ln s = x - that. */
INLINE float softmax(int k, const float *x, float *s) {
    float top = x[0], sum = 0;
    MAX(top) for (int j = 0; j < k; j++) top = x[j] > top ? x[j] : top;
    SUM(sum) for (int j = 0; j < k; j++) sum += s[j] = expo(x[j] - top);
    float inv = 1.0f / sum;
    SIMD for (int j = 0; j < k; j++) s[j] *= inv;
    return top + logf(sum);
}

INLINE void dice_rows(long n, int k, const float *x, float unimix, float *p, float *logp) {
    for (long i = 0; i < n; i++) {
        const float *a = x + i * k;
        float *q = p + i * k, *l = logp + i * k, norm = softmax(k, a, q);
        if (unimix == 0) {
            SIMD for (int j = 0; j < k; j++) l[j] = a[j] - norm;
        } else {
            SIMD for (int j = 0; j < k; j++) q[j] = (1.0f - unimix) * q[j] + unimix / k;
            SIMD for (int j = 0; j < k; j++) l[j] = logf(q[j]);
        }
    }
}

/* OneHots.of: p = (1-u) softmax(x) + u/k and ln p, for n dice.  All [n,k]. */
NARROW void dice(int threads, long n, int k, const float *x, float unimix, float *p, float *logp) {
    PARALLEL(8 * n * k) {
        long lo, hi;
        share(n, &lo, &hi);
#define F(k) dice_rows(hi - lo, k, x + lo * k, unimix, p + lo * k, logp + lo * k)
        KNOWN(k, F)
#undef F
    }
}

INLINE void dice_backward_rows(
    long n, int k, const float *dp, const float *dlogp, const float *x, float unimix, float *dx) {
    float s[k], t[k];
    for (long i = 0; i < n; i++) {
        const float *g = dp + i * k, *gl = dlogp + i * k;
        float *d = dx + i * k, dot = 0, both = 0;
        softmax(k, x + i * k, s);
        if (unimix == 0) {
            SUM(both) for (int j = 0; j < k; j++) both += gl[j];
            SIMD for (int j = 0; j < k; j++) t[j] = g[j];
        } else {
            SIMD for (int j = 0; j < k; j++) {
                float mixed = (1.0f - unimix) * s[j] + unimix / k;
                t[j] = (1.0f - unimix) * (g[j] + gl[j] / mixed);
            }
        }
        SUM(dot) for (int j = 0; j < k; j++) dot += s[j] * t[j];
        SIMD for (int j = 0; j < k; j++) d[j] = s[j] * (t[j] - dot - both);
        if (unimix == 0)
            SIMD for (int j = 0; j < k; j++) d[j] += gl[j];
    }
}

/* dx from dp and dlogp: d ln p = dp / p, then through the mixture and the softmax. */
NARROW void dice_backward(
    int threads, long n, int k, const float *dp, const float *dlogp, const float *x, float unimix,
    float *dx) {
    PARALLEL(8 * n * k) {
        long lo, hi;
        share(n, &lo, &hi);
        long at = lo * k;
#define F(k) dice_backward_rows(hi - lo, k, dp + at, dlogp + at, x + at, unimix, dx + at)
        KNOWN(k, F)
#undef F
    }
}

INLINE void throw_rows(
    long lo, long hi, int g, int k, const float *x, float unimix, const float *uniform, float *y,
    long ldy) {
    float s[k];
    for (long i = lo; i < hi; i++) {
        float *out = y + i / g * ldy + i % g * k;
        double below = 0;
        int face = 0;
        softmax(k, x + i * k, s);
        for (int j = 0; j < k - 1; j++) {
            below += (1.0f - unimix) * s[j] + unimix / k;
            face += (float)below <= uniform[i];
        }
        SIMD for (int j = 0; j < k; j++) out[j] = j == face;
    }
}

/* OneHots.sample: n rows of g dice, x [n,g*k], one uniform number a die; y [n,g*k] one-hot.
   The die shows the first face whose cumulative probability exceeds the number. */
NARROW void throw_dice(
    int threads, long n, int g, int k, const float *x, float unimix, const float *uniform,
    float *y, long ldy) {
    PARALLEL(8 * n * g * k) {
        long lo, hi;
        share(n * g, &lo, &hi);
#define F(k) throw_rows(lo, hi, g, k, x, unimix, uniform, y, ldy)
        KNOWN(k, F)
#undef F
    }
}

INLINE void throw_backward_rows(
    long lo, long hi, int g, int k, const float *dy, long lddy, const float *x, float unimix,
    float *dx) {
    float s[k];
    for (long i = lo; i < hi; i++) {
        const float *d = dy + i / g * lddy + i % g * k;
        float *out = dx + i * k, dot = 0;
        softmax(k, x + i * k, s);
        SUM(dot) for (int j = 0; j < k; j++) dot += s[j] * d[j];
        SIMD for (int j = 0; j < k; j++) out[j] += (1.0f - unimix) * s[j] * (d[j] - dot);
    }
}

/* Straight through: dx += (1-u) s (dy - sum s dy), the gradient of the probabilities. */
NARROW void throw_dice_backward(
    int threads, long n, int g, int k, const float *dy, long lddy, const float *x, float unimix,
    float *dx) {
    PARALLEL(8 * n * g * k) {
        long lo, hi;
        share(n * g, &lo, &hi);
#define F(k) throw_backward_rows(lo, hi, g, k, dy, lddy, x, unimix, dx)
        KNOWN(k, F)
#undef F
    }
}

/* --- scalars as twohots: heads.TwoHotHead ----------------------------------------------------- */

/* The bin above x, from 1 to k-1, and the share of x's weight that falls on it. */
INLINE int bin_above(int k, const float *bins, float x, float *part) {
    int low = 0, high = k; /* searchsorted, right: the first bin > x */
    x = x < bins[0] ? bins[0] : x > bins[k - 1] ? bins[k - 1] : x;
    while (low < high) {
        int middle = (low + high) / 2;
        if (bins[middle] <= x) low = middle + 1;
        else high = middle;
    }
    low = low < 1 ? 1 : low > k - 1 ? k - 1 : low;
    *part = (x - bins[low - 1]) / (bins[low] - bins[low - 1]);
    return low;
}

/* TwoHotHead.loss: cross-entropy of softmax(x) with twohot(target).  x [n,k], the rest [n]. */
void twohot_loss(
    int threads, long n, int k, const float *x, const float *bins, const float *target,
    float *loss) {
    PARALLEL(n * k) {
        long lo, hi;
        share(n, &lo, &hi);
        float s[k];
        for (long i = lo; i < hi; i++) {
            const float *a = x + i * k;
            float part, norm = softmax(k, a, s);
            int above = bin_above(k, bins, target[i], &part);
            loss[i] = norm - a[above - 1] * (1.0f - part) - a[above] * part;
        }
    }
}

/* dx [n,k] = dloss (softmax(x) - twohot(target)). */
void twohot_loss_backward(
    int threads, long n, int k, const float *dloss, const float *x, const float *bins,
    const float *target, float *dx) {
    PARALLEL(n * k) {
        long lo, hi;
        share(n, &lo, &hi);
        for (long i = lo; i < hi; i++) {
            float *d = dx + i * k, part;
            int above = bin_above(k, bins, target[i], &part);
            softmax(k, x + i * k, d);
            SIMD for (int j = 0; j < k; j++) d[j] *= dloss[i];
            d[above - 1] -= dloss[i] * (1.0f - part);
            d[above] -= dloss[i] * part;
        }
    }
}

/* TwoHotHead.mean: half of the mirrored sum, exactly 0 for equal logits.  x [n,k], mean [n]. */
void twohot_mean(int threads, long n, int k, const float *x, const float *bins, float *mean) {
    PARALLEL(n * k) {
        long lo, hi;
        share(n, &lo, &hi);
        float s[k];
        for (long i = lo; i < hi; i++) {
            float sum = 0;
            softmax(k, x + i * k, s);
            SUM(sum) for (int j = 0; j < k / 2; j++) sum += (s[k - 1 - j] - s[j]) * bins[k - 1 - j];
            mean[i] = sum;
        }
    }
}

/* --- images ----------------------------------------------------------------------------------- */

/* PixelHead.loss: sum over m pixels of (sigmoid(x) - image/255)^2.  x, image [n,m], loss [n]. */
void pixel_loss(
    int threads, long n, long m, const float *x, const uint8_t *image, float *loss) {
    PARALLEL(n * m) {
        long lo, hi;
        share(n, &lo, &hi);
        for (long i = lo; i < hi; i++) {
            double total = 0;
            for (long start = 0; start < m; start += 1024) {
                long stop = start + 1024 < m ? start + 1024 : m;
                const float *a = x + i * m;
                const uint8_t *b = image + i * m;
                float sum = 0;
                SUM(sum) for (long j = start; j < stop; j++) {
                    float error = sigmoid(a[j]) - b[j] / 255.0f;
                    sum += error * error;
                }
                total += sum;
            }
            loss[i] = (float)total;
        }
    }
}

void pixel_loss_backward(
    int threads, long n, long m, const float *dloss, const float *x, const uint8_t *image,
    float *dx) {
    PARALLEL(n * m) {
        long lo, hi;
        share(n, &lo, &hi);
        for (long i = lo; i < hi; i++) {
            const float *a = x + i * m;
            const uint8_t *b = image + i * m;
            float *d = dx + i * m;
            SIMD for (long j = 0; j < m; j++) {
                float p = sigmoid(a[j]);
                d[j] = 2.0f * dloss[i] * (p - b[j] / 255.0f) * p * (1.0f - p);
            }
        }
    }
}

/* A transposed 4x4 convolution with stride 2 and padding 1 is a matrix product, x [.,C] by weights
   [C,4,4,o], and then this sum of the 4 taps that meet at each pixel.
   taps [n,h,w,4,4,o], bias [o] -> y [n,2h,2w,o]. */
INLINE void fold_rows(
    long lo, long hi, int h, int w, int o, const float *taps, const float *bias, float *y) {
    for (long i = lo; i < hi; i++) {
        const float *from = taps + i * h * w * 16 * o;
        float *to = y + i * 4 * h * w * o;
        for (int r = 0; r < 2 * h; r++)
            for (int c = 0; c < 2 * w; c++) {
                float *out = to + (r * 2 * w + c) * o;
                for (int j = 0; j < o; j++) out[j] = bias[j];
                for (int a = (r + 1) % 2; a < 4; a += 2)
                    for (int b = (c + 1) % 2; b < 4; b += 2) {
                        int up = (r + 1 - a) / 2, left = (c + 1 - b) / 2;
                        if (r + 1 < a || c + 1 < b || up >= h || left >= w) continue;
                        const float *in = from + ((up * w + left) * 16 + a * 4 + b) * o;
                        for (int j = 0; j < o; j++) out[j] += in[j];
                    }
            }
    }
}

void fold(
    int threads, long n, int h, int w, int o, const float *taps, const float *bias, float *y) {
    PARALLEL(n * h * w * o) {
        long lo, hi;
        share(n, &lo, &hi);
        if (o == 1) fold_rows(lo, hi, h, w, 1, taps, bias, y);
        else if (o == 3) fold_rows(lo, hi, h, w, 3, taps, bias, y);
        else fold_rows(lo, hi, h, w, o, taps, bias, y);
    }
}

/* The way back: every tap reads the pixel it was added to.  dy [n,2h,2w,o] -> taps, no bias. */
void unfold(int threads, long n, int h, int w, int o, const float *dy, float *taps) {
    PARALLEL(n * h * w * o) {
        long lo, hi;
        share(n * h, &lo, &hi);
        for (long i = lo; i < hi; i++)
            for (int left = 0; left < w; left++)
                for (int a = 0; a < 4; a++) {
                    int r = 2 * (i % h) + a - 1, c = 2 * left - 1;
                    const float *from = dy + (i / h * 4 * h * w + (r * 2 * w + c)) * o;
                    float *to = taps + ((i * w + left) * 4 + a) * 4 * o;
                    int first = c < 0 ? o : 0, last = c + 4 > 2 * w ? 3 * o : 4 * o;
                    if (r < 0 || r >= 2 * h) last = first = 0;
                    for (int j = 0; j < 4 * o; j++)
                        to[j] = j >= first && j < last ? from[j] : 0.0f;
                }
    }
}
