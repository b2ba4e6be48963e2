/*
 * Arm's DSP instructions (Cortex-M4, M7, M33) multiply and add two pairs of int16 at once. They give
 * the same results as plain C, which -DNO_DSP selects.
 */
#if defined(__ARM_FEATURE_SIMD32) && defined(__thumb2__) && !defined(NO_DSP)
#define DSP
#include <arm_acle.h>
#include <string.h>
#endif
