/* (a - zero_a) * (b - zero_b); where `by_channel`, one b counts for every place. */
static void multiply(const uint8_t *a, const uint8_t *b, int by_channel, int places, int channels,
                     int zero_a, int zero_b, int32_t factor, int64_t offset, int shift,
                     uint8_t *out)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++) {
            const int at = p * channels + c;
            const int32_t product = (a[at] - zero_a) * (b[by_channel ? c : at] - zero_b);
            out[at] = settle((int64_t)product * factor + offset, shift);
        }
}
