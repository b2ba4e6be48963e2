/* The mean of each channel over its map. */
static void mean(const float *in, int places, int channels, float *out)
{
    for (int c = 0; c < channels; c++)
        out[c] = in[c];
    for (int p = 1; p < places; p++)
        for (int c = 0; c < channels; c++)
            out[c] += in[p * channels + c];
    for (int c = 0; c < channels; c++)
        out[c] /= (float)places;
}
