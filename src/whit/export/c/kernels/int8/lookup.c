/* An activation by lookup table; if `per_channel`, with one table of 256 bytes per channel. */
static void lookup(const uint8_t *in, int pixels, int channels, int per_channel,
                   const uint8_t *table, uint8_t *out)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            out[p * channels + c] = table[(per_channel ? 256 * c : 0) + in[p * channels + c]];
}
