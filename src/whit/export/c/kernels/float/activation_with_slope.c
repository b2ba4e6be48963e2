/* The activation $function of each number. */
static void ${function}_each(const float *in, int count, float slope, float *out)
{
    for (int i = 0; i < count; i++) {
        const float x = in[i];
        out[i] = $expression;
    }
}
