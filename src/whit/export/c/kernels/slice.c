/* Take `channels` of a map's `pitch` channels, from `first` on. */
static void take(const $number *in, int places, int first, int pitch, $number *out, int channels)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++)
            out[p * channels + c] = in[p * pitch + first + c];
}
