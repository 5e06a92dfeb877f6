/* Checks what the kernels of runtime/src/updates.c with FPTT_FUSED say of the values that they saw or
   wrote: at least the largest |value|, at most sqrt(2 n) times it, and Inf or NaN where there is one.
   Exit status 1 and a line for each violation. */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "target.h"

#define MOST 70
#if FPTT_PARAMETER_BF16
#define ROOM 1.01 /* what storing may have added to the largest, or taken from it */
#else
#define ROOM 1.000001
#endif

static uint32_t state = 1;
static int violations;

/* between -1 and 1 */
static float drawn(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

static double largest(const fptt_parameter *values, size_t n, double so_far) {
    for (size_t i = 0; i < n; i++) {
        const double value = fabs((double)FPTT_GET_P(values[i]));
        so_far = value > so_far || isnan(value) ? value : so_far;
    }
    return so_far;
}

static void check(const char *what, size_t n, uint32_t bits, double exact) {
    const double bound = (double)fptt_float(bits);
    const int right = isfinite(exact) && exact < 1e19
                          ? bound * ROOM >= exact && bound <= ROOM * sqrt(2.0 * (double)n) * exact
                          : bits >= 0x7f800000u && !isnan(exact) == !isnan(bound);
    if (!right) {
        printf("%s of %zu: %g, the largest is %g\n", what, n, bound, exact);
        violations = 1;
    }
}

static void fill(fptt_parameter *values, float scale) {
    for (size_t i = 0; i < MOST; i++) {
        values[i] = FPTT_PUT_P(scale * drawn());
    }
}

static void updates(const fptt_update_rule *rule, size_t n, size_t odd, float value) {
    static fptt_parameter theta[MOST], lambda[MOST], mean[MOST], first[MOST], second[MOST], g[MOST];
    const fptt_learned at = {theta, rule->wrapped ? lambda : NULL, mean, first, second, 1, n, n, 0, 0, 0};
    const fptt_step step = {0.01f, 1.0f, 1.0f, 1.0f, {0, 0, 0}};
    fill(theta, 1.0f), fill(lambda, 3.0f), fill(mean, 1.0f), fill(first, 0.0f), fill(second, 0.0f);
    fill(g, 1.0f);
    if (odd < n) {
        lambda[odd] = theta[odd] = FPTT_PUT_P(value);
    }
    const uint32_t bits = FPTT_KERNEL(update)(&at, g, rule, step);
    const double exact = largest(theta, n, 0.0);
    check("update", n, bits, rule->wrapped && !isnan(exact) ? largest(lambda, n, exact) : exact);
}

int main(void) {
    const float odd[] = {NAN, INFINITY, -INFINITY, 1e21f, 1e12f, -3e15f};
    const fptt_optimizer optimizers[] = {FPTT_SGD, FPTT_MOMENTUM, FPTT_ADAM};
    for (size_t n = 1; n <= MOST; n++) {
        for (size_t o = 0; o < 12; o++) { /* with a number that is large or none, and without */
            const size_t place = o < 6 ? (n * 7 + o) % n : n;
            const float value = odd[o % 6];
            float plain[MOST];
            fptt_bf16 narrow[MOST];
            double of_plain = 0.0, of_narrow = 0.0;
            for (size_t i = 0; i < n; i++) {
                plain[i] = i == place ? value : drawn();
                narrow[i] = fptt_narrow(plain[i]);
                const double one = fabs((double)plain[i]), two = fabs((double)fptt_widen(narrow[i]));
                of_plain = one > of_plain || isnan(one) ? one : of_plain;
                of_narrow = two > of_narrow || isnan(two) ? two : of_narrow;
            }
            check("largest_float", n, FPTT_KERNEL(largest_float)(n, plain), of_plain);
            check("largest_bf16", n, FPTT_KERNEL(largest_bf16)(n, narrow), of_narrow);
            for (size_t which = 0; which < 24; which++) {
                fptt_update_rule rule;
                memset(&rule, 0, sizeof rule);
                rule.optimizer = optimizers[which % 3];
                rule.wrapped = which / 3 % 2 == 0;
                rule.momentum = rule.beta1 = rule.one_minus_beta1 = 0.5f;
                rule.beta2 = rule.one_minus_beta2 = 0.5f, rule.epsilon = 1e-8f;
                rule.alpha = 0.5f, rule.beta = which / 6 % 2 ? 0.5f : 0.25f;
                rule.one_minus_beta = 1.0f - rule.beta, rule.beta_over_alpha = rule.beta / rule.alpha;
                rule.pull = which / 12 ? 1.0f : 0.5f;
                updates(&rule, n, place, value);
            }
        }
    }
    return violations;
}
