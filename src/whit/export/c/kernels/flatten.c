/* A map's numbers channel by channel. */
static void flatten(const $number *in, int places, int channels, $number *out)
{
    for (int c = 0; c < channels; c++)
        for (int p = 0; p < places; p++)
            out[c * places + p] = in[p * channels + c];
}
