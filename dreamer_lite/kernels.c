/* The parts of a layer that are no matrix product, each in one pass over memory (chapter 13).

   Every function has a readable twin in Python, named above it, and computes the same numbers
   (tests/test_native.py). Arrays are float32 unless said otherwise, the last axis is contiguous,
   "ld" is the distance between two rows, "threads" how many may work. Work is shared and sums are
   taken in a fixed order: the same threads, the same bits. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
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

/* --- convolutions ----------------------------------------------------------------------------- */

/* Images are channels-last and are worked on one by one, in a copy with a frame of zeros that fits
   the processor's cache. There the k x k x i numbers below a pixel are k runs of k*i numbers, and a
   convolution is the product of such a window with weights [k,k*i,o]. These come in `ld` columns,
   filled up with zeros to whole vectors, 16 columns [k,k*i,16] after another, the last perhaps 8.
   Nothing is ever copied once per tap. */
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(8), aligned(1), may_alias));
#define LANES 8
#define UNROLL _Pragma("GCC unroll 16")
/* Keeps a vector in its register where the compiler would read it from memory at every use. */
#if defined(__GNUC__) && defined(__AVX__)
#define HOLD(x) ({ __asm__("" : "+x"(x)); })
#else
#define HOLD(x) (void)0
#endif
#define SLACK 128 /* numbers behind an image that may be read, and are not used */

/* sum[2,wide,lanes] += the windows of 2 x wide pixels times weights w [k,run,lanes].  row: numbers
   between two rows of x. */
INLINE void windows(
    int wide, int lanes, int k, int i, const float *x, long row, const float *w, vec *sum) {
    for (int ky = 0; ky < k; ky++, x += row)
        for (int j = 0; j < k * i; j++, w += lanes * LANES) {
            vec weight[2];
            UNROLL for (int v = 0; v < lanes; v++) {
                weight[v] = *(const vec *)(w + v * LANES);
                HOLD(weight[v]);
            }
            UNROLL for (int t = 0; t < 2 * wide; t++) {
                float number = x[t / wide * row + t % wide * i + j];
                UNROLL for (int v = 0; v < lanes; v++) sum[t * lanes + v] += weight[v] * number;
            }
        }
}

/* The first `count` numbers of a vector. */
INLINE void put(float *y, vec x, int count) {
    if (count >= LANES) *(vec *)y = x;
    else for (int j = 0; j < count; j++) y[j] = x[j];
}

/* A k x k convolution that keeps the size of an image: from i channels, in a frame where rows are
   `row` numbers apart, to o channels without one; ld: o or more, as many as are computed. */
typedef struct {
    int k, h, w, i, o, ld;
    long row;
} Conv;

INLINE Conv same(int k, int h, int w, int i, int o, int ld) {
    return (Conv){k, h, w, i, o, ld, (w + k - 1L) * i};
}

/* A tile of 2 x wide pixels from row r, column c, channel v: bias and windows. */
INLINE void tile(
    int wide, int lanes, Conv s, const float *x, const float *weight, const float *bias, int r,
    int c, int v, vec *sum) {
    UNROLL for (int t = 0; t < 8; t++) sum[t] = *(const vec *)(bias + v + t % lanes * LANES);
    x += r * s.row + c * s.i;
    windows(wide, lanes, s.k, s.i, x, s.row, weight + (long)v * s.k * s.k * s.i, sum);
}

INLINE void conv_tile(
    int wide, int lanes, Conv s, const float *x, const float *weight, const float *bias, int r,
    int c, int v, float *y) {
    vec sum[8];
    tile(wide, lanes, s, x, weight, bias, r, c, v, sum);
    UNROLL for (int t = 0; t < 8; t++) {
        int up = r + t / lanes / wide, left = c + t / lanes % wide, at = v + t % lanes * LANES;
        if (up < s.h && left < s.w) put(y + ((long)up * s.w + left) * s.o + at, sum[t], s.o - at);
    }
}

static void conv_image(Conv s, const float *x, const float *weight, const float *bias, float *y) {
    for (int r = 0; r < s.h; r += 2)
        for (int v = 0; v < s.ld; v += 2 * LANES)
            if (s.ld - v > LANES)
                for (int c = 0; c < s.w; c += 2) conv_tile(2, 2, s, x, weight, bias, r, c, v, y);
            else
                for (int c = 0; c < s.w; c += 4) conv_tile(4, 1, s, x, weight, bias, r, c, v, y);
}

/* The same, and of each 2x2 pixels only the largest: best [h/2,w/2,o], and which in index. */
INLINE void pooled_tile(
    int wide, int lanes, Conv s, const float *x, const float *weight, const float *bias, int r,
    int c, int v, float *best, uint8_t *index) {
    vec sum[8];
    tile(wide, lanes, s, x, weight, bias, r, c, v, sum);
    UNROLL for (int t = 0; t < wide / 2 * lanes; t++) {
        int first = t / lanes * 2 * lanes + t % lanes, at = v + t % lanes * LANES;
        vec top = sum[first];
        ints which = {0};
        UNROLL for (int q = 1; q < 4; q++) {
            vec next = sum[first + (q / 2 * wide + q % 2) * lanes];
            ints larger = (next > top) | (next != next); /* what is no number wins */
            top = (vec)(((ints)next & larger) | ((ints)top & ~larger));
            which = (q & larger) | (which & ~larger);
        }
        if (c / 2 + t / lanes >= s.w / 2) continue;
        long to = ((long)(r / 2) * (s.w / 2) + c / 2 + t / lanes) * s.o + at;
        put(best + to, top, s.o - at);
        bytes small = __builtin_convertvector(which, bytes);
        if (s.o - at >= LANES) *(bytes *)(index + to) = small;
        else for (int j = 0; j < s.o - at; j++) index[to + j] = small[j];
    }
}

static void conv_pool_image(
    Conv s, const float *x, const float *weight, const float *bias, float *best, uint8_t *index) {
    for (int r = 0; r < s.h; r += 2)
        for (int v = 0; v < s.ld; v += 2 * LANES)
            if (s.ld - v > LANES)
                for (int c = 0; c < s.w; c += 2)
                    pooled_tile(2, 2, s, x, weight, bias, r, c, v, best, index);
            else
                for (int c = 0; c < s.w; c += 4)
                    pooled_tile(4, 1, s, x, weight, bias, r, c, v, best, index);
}

/* An image [h,w,c] into its frame of `edge` zeros, which are there already. */
INLINE void frame(int h, int w, int c, int edge, const float *x, float *to) {
    long row = (w + 2L * edge) * c;
    for (int r = 0; r < h; r++)
        memcpy(to + (r + edge) * row + edge * c, x + (long)r * w * c, 4L * w * c);
}

/* Zeros for an image [h,w,c] with its frame, and what tiles may read behind it. */
INLINE float *framed(int h, int w, int c, int edge) {
    return calloc((long)(h + 2 * edge + 1) * (w + 2 * edge) * c + 4L * c + SLACK, 4);
}

/* 5x5 convolution, then the largest of 2x2.  x [n,h,w,i], weight [5,5*i,ld], bias [ld] -> y
   [n,h/2,w/2,o] and index: which of the four it was. */
void conv_pool(
    int threads, long n, int h, int w, int i, int o, int ld, const float *x, const float *weight,
    const float *bias, float *y, uint8_t *index) {
    PARALLEL(n * h * w) {
        long lo, hi, pooled = (long)(h / 2) * (w / 2) * o;
        share(n, &lo, &hi);
        float *seen = framed(h, w, i, 2);
        for (long m = lo; m < hi; m++) {
            frame(h, w, i, 2, x + m * h * w * i, seen);
            conv_pool_image(
                same(5, h, w, i, o, ld), seen, weight, bias, y + m * pooled, index + m * pooled);
        }
        free(seen);
    }
}

/* Where each 2x2 pixels of an image [h,w,c] begin in a frame of two: a table to be freed. */
INLINE long *squares(int h, int w, int c) {
    long *at = malloc(sizeof(long) * (h / 2) * (w / 2)), *next = at;
    for (int r = 0; r < h / 2; r++)
        for (int k = 0; k < w / 2; k++) *next++ = (2 * r * (w + 4L) + 2 * k) * c;
    return at;
}

/* total [5,ld] += of one image for one output. Only the largest of four pixels has a gradient: a
   quarter of the work.  at: where the windows of the gradient's `count` numbers begin. */
INLINE void pooled_weights(
    long count, int ld, const float *x, long row, const long *at, const float *value,
    float *total) {
    for (int j = 0; j < ld; j += 2 * LANES) {
        vec taps[10] = {0};
        for (long p = 0; p < count; p++)
            UNROLL for (int t = 0; t < 10; t++)
                taps[t] += *(const vec *)(x + at[p] + j + t / 2 * row + t % 2 * LANES) * value[p];
        UNROLL for (int t = 0; t < 10; t++)
            *(vec *)(total + t / 2 * ld + j + t % 2 * LANES) += taps[t];
    }
}

/* The way back to the weights.  grad, index [n,h/2,w/2,o]; total [threads,o,5*ld+1] is added to:
   weights [5,5*i], filled up to a multiple ld of 16, and bias. */
void conv_pool_weights(
    int threads, long n, int h, int w, int i, int o, int ld, const float *x, const float *grad,
    const uint8_t *index, float *total) {
    PARALLEL(n * h * w) {
        long lo, hi, count = (long)(h / 2) * (w / 2);
        share(n, &lo, &hi);
        float *seen = framed(h, w, i, 2), *value = malloc(sizeof(float) * count);
        long *square = squares(h, w, i), *at = squares(h, w, i), row = (w + 4L) * i;
        long corner[4] = {0, i, row, row + i};
        for (long m = lo; m < hi; m++) {
            float *mine = total + omp_get_thread_num() * (5L * ld + 1) * o;
            frame(h, w, i, 2, x + m * h * w * i, seen);
            for (int j = 0; j < o; j++, mine += 5 * ld + 1) {
                float sum = 0;
                for (long p = 0; p < count; p++) {
                    long from = (m * count + p) * o + j;
                    at[p] = square[p] + corner[index[from]];
                    sum += value[p] = grad[from];
                }
                mine[5 * ld] += sum;
                pooled_weights(count, ld, seen, row, at, value, mine);
            }
        }
        free(seen), free(value), free(square), free(at);
    }
}

/* The way back to x: a convolution of the gradient, zero where a pixel was not the largest.  turned
   [5,5*o,ld]: the weights from o to i, upside down; dx [n,h,w,i]. */
void conv_pool_inputs(
    int threads, long n, int h, int w, int i, int o, int ld, const float *grad,
    const float *turned, const float *zero, const uint8_t *index, float *dx) {
    PARALLEL(n * h * w) {
        long lo, hi, count = (long)(h / 2) * (w / 2);
        share(n, &lo, &hi);
        float *whole = framed(h, w, o, 2), *inner = whole + 2 * (w + 5L) * o;
        long *square = squares(h, w, o), row = (w + 4L) * o, corner[4] = {0, o, row, row + o};
        for (long m = lo; m < hi; m++) {
            const float *g = grad + m * count * o;
            const uint8_t *which = index + m * count * o;
            for (long p = 0; p < count; p++, g += o, which += o)
                for (int q = 0; q < 4; q++) {
                    float *to = inner + square[p] + corner[q];
                    for (int j = 0; j < o; j++) to[j] = which[j] == q ? g[j] : 0.0f;
                }
            conv_image(same(5, h, w, o, i, ld), whole, turned, zero, dx + m * h * w * i);
        }
        free(whole), free(square);
    }
}

/* Four images [h,w,o] of one quarter of the pixels each, as channels of one, and back: with a frame
   quarters [h+2e,w+2e,2,2,o], whole [2h,2w,o]. */
INLINE void interleave(int h, int w, int o, int edge, float *quarters, float *whole, int back) {
    for (int r = 0; r < 2 * h; r++)
        for (int c = 0; c < w; c++) {
            float *a = whole + ((long)r * w + c) * 2 * o;
            float *b = quarters + ((r / 2 + edge) * (w + 2L * edge) + c + edge) * 4 * o;
            b += r % 2 * 2 * o;
            if (back) for (int j = 0; j < 2 * o; j++) b[j] = a[j];
            else for (int j = 0; j < 2 * o; j++) a[j] = b[j];
        }
}

/* Every pixel repeated 2x2, then a 5x5 convolution: 3x3 to four quarters.  x [n,h,w,i], weight
   [3,3*i,ld] with ld >= 4*o, bias [ld] -> y [n,2h,2w,o]. */
void conv_up(
    int threads, long n, int h, int w, int i, int o, int ld, const float *x, const float *weight,
    const float *bias, float *y) {
    PARALLEL(n * h * w) {
        long lo, hi, size = (long)h * w * i;
        share(n, &lo, &hi);
        float *seen = framed(h, w, i, 1), *quarters = framed(h, w, 4 * o, 0);
        for (long m = lo; m < hi; m++) {
            frame(h, w, i, 1, x + m * size, seen);
            conv_image(same(3, h, w, i, 4 * o, ld), seen, weight, bias, quarters);
            interleave(h, w, o, 0, quarters, y + m * 4L * h * w * o, 0);
        }
        free(seen), free(quarters);
    }
}

/* total [k,k*i,ld] += of one image: the sum over pixels of window times gradient.  grad [h,w,o],
   `gap` numbers from one row to the next; ld: o or more, a multiple of 16. */
static void conv_weights(Conv s, const float *x, const float *grad, long gap, float *total) {
    int run = s.k * s.i;
    for (int ky = 0; ky < s.k; ky++)
        for (int j = 0; j < run; j += 4)
            for (int v = 0; v < s.ld; v += 2 * LANES) {
                vec sum[8] = {0};
                for (int r = 0; r < s.h; r++) {
                    const float *a = x + (r + ky) * s.row + j;
                    const float *g = grad + r * gap + v;
                    for (int c = 0; c < s.w; c++, a += s.i, g += s.o) {
                        vec one = *(const vec *)g, two = *(const vec *)(g + LANES);
                        HOLD(one), HOLD(two);
                        UNROLL for (int t = 0; t < 4; t++) {
                            sum[2 * t] += one * a[t];
                            sum[2 * t + 1] += two * a[t];
                        }
                    }
                }
                UNROLL for (int t = 0; t < 4; t++)
                    if (j + t < run) {
                        float *to = total + (ky * run + j + t) * s.ld + v;
                        *(vec *)to += sum[2 * t];
                        *(vec *)(to + LANES) += sum[2 * t + 1];
                    }
            }
}

/* The way back.  grad [n,2h,2w,o]; turned [3,3*4*o,ld]: the weights from 4*o to i, upside down;
   total [threads,9*i+1,lt] is added to: weights, then bias; dx [n,h,w,i]. */
void conv_up_backward(
    int threads, long n, int h, int w, int i, int o, int ld, const float *x, const float *turned,
    const float *zero, const float *grad, int lt, float *total, float *dx) {
    PARALLEL(n * h * w) {
        long lo, hi, size = (long)h * w * i, gap = (w + 2L) * 4 * o;
        share(n, &lo, &hi);
        float *seen = framed(h, w, i, 1), *quarters = framed(h, w, 4 * o, 1);
        float *inner = quarters + gap + 4 * o;
        float *mine = total + omp_get_thread_num() * (9L * i + 1) * lt;
        Conv forth = same(3, h, w, i, 4 * o, lt);
        for (long m = lo; m < hi; m++) {
            float sum[4 * o];
            memset(sum, 0, sizeof sum);
            frame(h, w, i, 1, x + m * size, seen);
            interleave(h, w, o, 1, quarters, (float *)grad + m * 4 * h * w * o, 1);
            for (int r = 0; r < h; r++)
                for (int c = 0; c < w; c++)
                    for (int j = 0; j < 4 * o; j++)
                        sum[j] += inner[r * gap + c * 4L * o + j];
            for (int j = 0; j < 4 * o; j++) mine[9L * i * lt + j] += sum[j];
            conv_weights(forth, seen, inner, gap, mine);
            conv_image(same(3, h, w, 4 * o, i, ld), quarters, turned, zero, dx + m * size);
        }
        free(seen), free(quarters);
    }
}
