/* Put a map's channels into a wider map, from `first` on, in that map's steps. */
static void put(const uint8_t *in, int places, int channels, int32_t factor, int64_t offset,
                int shift, uint8_t *out, int first, int pitch)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++)
            out[p * pitch + first + c] =
                settle((int64_t)in[p * channels + c] * factor + offset, shift);
}
