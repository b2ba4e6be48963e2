/* The activation function $function, elementwise. */
static void apply_${function}(const float *in, int count, float slope, float *out)
{
    for (int i = 0; i < count; i++) {
        const float x = in[i];
        out[i] = $expression;
    }
}
