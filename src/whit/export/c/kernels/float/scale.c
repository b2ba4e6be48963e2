/* x * factor + offset, by channel. */
static void scale(const float *in, int places, int channels, const float *factor,
                  const float *offset, float *out)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++)
            out[p * channels + c] = in[p * channels + c] * factor[c] + offset[c];
}
