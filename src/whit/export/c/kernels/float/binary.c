/* x $sign y of each two numbers; where `by_channel`, one y counts for every place. */
static void $kind(const float *a, const float *b, int by_channel, int places, int channels,
                  float *out)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++)
            out[p * channels + c] =
                a[p * channels + c] $sign b[by_channel ? c : p * channels + c];
}
