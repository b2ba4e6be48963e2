/* Channels `first` to `first + channels` of a feature map of `stride` channels. */
static void slice(const $number *in, int pixels, int first, int stride, $number *out, int channels)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            out[p * channels + c] = in[p * stride + first + c];
}
