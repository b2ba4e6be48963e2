/* x above zero, and x times its channel's slope below. */
static void prelu(const float *in, int places, int channels, const float *slope, float *out)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++) {
            const float x = in[p * channels + c];
            out[p * channels + c] = x > 0 ? x : x * slope[c];
        }
}
