/* Copy a feature map to channels `first` on of a concatenation of `stride` channels. */
static void concat(const float *in, int pixels, int channels, float *out, int first, int stride)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            out[p * stride + first + c] = in[p * channels + c];
}
