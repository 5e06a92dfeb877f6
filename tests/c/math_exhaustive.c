/* Checks runtime/src/fptt_math.h through runtime/src/math_arrays.c, against libm in float64; with
   -mfma -DFPTT_FUSED=1 runtime/src/fptt_fused.h.

       cc -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -I runtime/src \
           tests/c/math_exhaustive.c runtime/src/math_arrays.c -lm -o math_exhaustive
       ./math_exhaustive                   every float32: about four minutes
       ./math_exhaustive --stride 4099     every 4099th and its neighbour, all near the edges

   Goes through the floats in ascending order, from NaN over -Inf to +Inf and NaN. Checks for each
   function the largest error, NaN and infinities, the promised flush to zero, the bounds of tanh
   and sigmoid, that results never fall by more than 1 ulp (2 where fused), and that tanh is odd in
   every bit (where not).
   Prints a line per function with a checksum (FNV-1a) of the bits of all results, where every NaN
   counts the same. Exit status 1 if anything is violated. */

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "math_arrays.h"

#define BLOCK 4096

typedef struct {
    const char *name;
    void (*array)(float *y, const float *x, size_t n);
    double (*exact)(double x);
    double limit; /* of the error, in ulp */
    int flushes;  /* results below 2^-126 must be 0 */
    float low, high;
    int falls; /* from one float to the next the result may fall by so many ulp */
    int odd;   /* f(-x) has the bits of -f(x) */
} function;

static double logistic(double x) { return 1.0 / (1.0 + exp(-x)); }
static double logarithm(double x) { return x < 0.0 ? (double)NAN : log(x); }
static double root(double x) { return x < 0.0 ? (double)NAN : sqrt(x); }

/* The limits are those that stand in fptt_math.h and fptt_fused.h. */
static const function FUNCTIONS[] = {
    {"exp", fptt_exp_n, exp, 1.68, 1, 0.0f, INFINITY, 1, 0},
#if FPTT_FUSED
    {"sigmoid", fptt_sigmoid_n, logistic, 2.71, 1, 0.0f, 1.0f, 2, 0},
    {"tanh", fptt_tanh_n, tanh, 2.59, 0, -1.0f, 1.0f, 2, 0},
#else
    {"sigmoid", fptt_sigmoid_n, logistic, 2.44, 1, 0.0f, 1.0f, 1, 0},
    {"tanh", fptt_tanh_n, tanh, 2.88, 0, -1.0f, 1.0f, 1, 1},
#endif
    {"log", fptt_log_n, logarithm, 0.96, 0, -INFINITY, INFINITY, 1, 0},
    {"sqrt", fptt_sqrt_n, root, 0.5, 0, 0.0f, INFINITY, 1, 0},
};

/* Every float within 100 ulp of these is checked, whatever the stride. */
static const float EDGES[] = {
    -INFINITY,      -3.4028235e38f, -88.722839f, -88.029694f, -87.336544f,
    -9.125f,        -9.0109f,       -1.0f,       -0.1732868f, -1.1754944e-38f,
    0.0f,           1.1754944e-38f, 0.1732868f,  0.34657359f, 0.70710678f,
    1.0f,           1.4142135f,     9.0109f,     9.125f,      17.0f,
    88.0f,          88.376263f,     88.722839f,  3.4028235e38f, INFINITY,
};

static float of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The rank of a float in ascending order (-0 before +0), and back. */
static uint32_t rank_of(float value) {
    const uint32_t bits = bits_of(value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static float of_rank(uint32_t rank) {
    return of_bits(rank >> 31 ? rank & 0x7fffffffu : ~rank);
}

/* The distance of two neighbouring floats at this value, in doubles. */
static double ulp_of(double value) {
    int exponent;
    frexp(value, &exponent);
    return ldexp(1.0, exponent - 24 < -149 ? -149 : exponent - 24);
}

typedef struct {
    double worst;
    float worst_at;
    uint64_t violations;
    uint64_t checksum;
    int has_previous;
    uint32_t previous; /* rank of the last result */
} state;

static void violation(const function *f, state *s, const char *what, float x, float y) {
    if (s->violations++ < 5) {
        printf("%s: %s: f(%a) = %a\n", f->name, what, (double)x, (double)y);
    }
}

static void check_one(const function *f, state *s, float x, float y) {
    s->checksum = (s->checksum ^ (isnan(y) ? 0x7fc00000u : bits_of(y))) * 0x100000001b3u;
    const double exact = f->exact((double)x);
    if (isnan(y) || isnan(exact)) {
        if (!(isnan(y) && isnan(exact))) {
            violation(f, s, "NaN", x, y);
        }
        return;
    }
    if (!(y >= f->low && y <= f->high)) {
        violation(f, s, "out of bounds", x, y);
    }
    const uint32_t rank = rank_of(y);
    if (s->has_previous && (int64_t)rank - (int64_t)s->previous < -f->falls) {
        violation(f, s, "falls", x, y);
    }
    s->has_previous = 1;
    s->previous = rank;
    const float nearest = (float)exact;
    if (isinf(nearest) || isinf(y)) {
        if (y != nearest) {
            violation(f, s, "infinite", x, y);
        }
    } else if (f->flushes && exact < 0x1p-126) {
        if (bits_of(y) != 0) {
            violation(f, s, "not flushed to +0", x, y);
        }
    } else {
        /* the nearest float is within half an ulp, without computing by how much */
        const double error = bits_of(y) == bits_of(nearest)
                                 ? 0.5
                                 : fabs((double)y - exact) / ulp_of(exact);
        if (error > s->worst) {
            s->worst = error;
            s->worst_at = x;
        }
        if (!(error <= f->limit)) {
            violation(f, s, "error too large", x, y);
        }
        if (y == 0.0f && bits_of(y) != bits_of(nearest)) {
            violation(f, s, "sign of zero", x, y);
        }
    }
}

/* The inputs waiting for their array to be full. */
typedef struct {
    size_t n;
    float x[BLOCK], y[BLOCK], negative[BLOCK];
} block;

static void flush(const function *f, state *s, block *b) {
    f->array(b->y, b->x, b->n);
    for (size_t i = 0; i < b->n; i++) {
        check_one(f, s, b->x[i], b->y[i]);
    }
    if (f->odd) {
        for (size_t i = 0; i < b->n; i++) {
            b->x[i] = -b->x[i];
        }
        f->array(b->negative, b->x, b->n);
        for (size_t i = 0; i < b->n; i++) {
            if (!isnan(b->y[i]) && bits_of(b->negative[i]) != (bits_of(b->y[i]) ^ 0x80000000u)) {
                violation(f, s, "not odd", b->x[i], b->negative[i]);
            }
        }
    }
    b->n = 0;
}

static void add(const function *f, state *s, block *b, uint64_t rank) {
    b->x[b->n++] = of_rank((uint32_t)rank);
    if (b->n == BLOCK) {
        flush(f, s, b);
    }
}

static uint64_t check(const function *f, uint32_t stride) {
    static block b;
    state s = {.checksum = 0xcbf29ce484222325u};
    for (uint64_t rank = 0; rank <= 0xffffffffu; rank += stride) {
        add(f, &s, &b, rank);
        if (stride > 1 && rank < 0xffffffffu) {
            add(f, &s, &b, rank + 1);
        }
    }
    flush(f, &s, &b);
    for (size_t edge = 0; stride > 1 && edge < sizeof EDGES / sizeof *EDGES; edge++) {
        s.has_previous = 0;
        const uint64_t middle = rank_of(EDGES[edge]);
        for (uint64_t rank = middle - 100; rank <= middle + 100; rank++) {
            add(f, &s, &b, rank);
        }
        flush(f, &s, &b);
    }
    printf("%s: largest error %.4f ulp at %a, %" PRIu64 " violations, checksum %016" PRIx64 "\n",
           f->name, s.worst, (double)s.worst_at, s.violations, s.checksum);
    fflush(stdout);
    return s.violations;
}

int main(int argc, char **argv) {
    unsigned long stride = 1;
    if (argc == 3 && strcmp(argv[1], "--stride") == 0) {
        stride = strtoul(argv[2], NULL, 10);
    }
    if ((argc != 1 && argc != 3) || stride == 0 || stride > 0x7fffffffu) {
        fprintf(stderr, "usage: %s [--stride N]\n", argv[0]);
        return 2;
    }
    uint64_t violations = 0;
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        violations += check(&FUNCTIONS[i], (uint32_t)stride);
    }
    return violations != 0;
}
