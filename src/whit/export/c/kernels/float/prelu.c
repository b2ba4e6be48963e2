/* PReLU: x if positive, else x times the slope of its channel. */
static void prelu(const float *in, int pixels, int channels, const float *slope, float *out)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++) {
            const float x = in[p * channels + c];
            out[p * channels + c] = x > 0 ? x : x * slope[c];
        }
}
