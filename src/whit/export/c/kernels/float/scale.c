/* x * factor + offset per channel. */
static void scale(const float *in, int pixels, int channels, const float *factor,
                  const float *offset, float *out)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            out[p * channels + c] = in[p * channels + c] * factor[c] + offset[c];
}
