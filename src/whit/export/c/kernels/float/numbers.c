/* Pixels as floating-point numbers. */
static void numbers(const uint8_t *in, int count, float *out)
{
    for (int i = 0; i < count; i++)
        out[i] = in[i];
}
