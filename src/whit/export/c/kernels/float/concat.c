/* Put a map's channels into a wider map, from `first` on. */
static void put(const float *in, int places, int channels, float *out, int first, int pitch)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++)
            out[p * pitch + first + c] = in[p * channels + c];
}
