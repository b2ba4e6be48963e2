/* a $operator b elementwise; if `per_channel`, b holds one value per channel. */
static void $kind(const float *a, const float *b, int per_channel, int pixels, int channels,
                  float *out)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            out[p * channels + c] =
                a[p * channels + c] $operator b[per_channel ? c : p * channels + c];
}
