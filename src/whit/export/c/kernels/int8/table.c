/* An activation looked up; where `by_channel`, each channel has a table of its own. */
static void look_up(const uint8_t *in, int places, int channels, int by_channel,
                    const uint8_t *table, uint8_t *out)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++)
            out[p * channels + c] = table[(by_channel ? 256 * c : 0) + in[p * channels + c]];
}
