/* Convert uint8 pixels to float. */
static void to_float(const uint8_t *in, int count, float *out)
{
    for (int i = 0; i < count; i++)
        out[i] = in[i];
}
