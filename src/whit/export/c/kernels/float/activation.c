/* The activation function $function, elementwise. */
static void apply_${function}(const float *in, int count, ${parameters}float *out)
{
    for (int i = 0; i < count; i++) {
        const float x = in[i];
        out[i] = $expression;
    }
}
