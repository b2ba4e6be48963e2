/* A feature map flattened in CHW order. */
static void flatten(const $number *in, int pixels, int channels, $number *out)
{
    for (int c = 0; c < channels; c++)
        for (int p = 0; p < pixels; p++)
            out[c * pixels + p] = in[p * channels + c];
}
