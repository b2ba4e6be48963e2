/* Global average pooling. */
static void mean(const float *in, int pixels, int channels, float *out)
{
    for (int c = 0; c < channels; c++)
        out[c] = in[c];
    for (int p = 1; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            out[c] += in[p * channels + c];
    for (int c = 0; c < channels; c++)
        out[c] /= (float)pixels;
}
