/* (a - zero_point_a) * (b - zero_point_b); if `per_channel`, b holds one value per channel. */
static void multiply(const uint8_t *a, const uint8_t *b, int per_channel, int pixels, int channels,
                     int zero_point_a, int zero_point_b, int32_t factor, int64_t offset,
                     int shift, uint8_t *out)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++) {
            const int i = p * channels + c;
            const int32_t x = a[i] - zero_point_a;
            const int32_t product = x * (b[per_channel ? c : i] - zero_point_b);
            out[i] = requantize((int64_t)product * factor + offset, shift);
        }
}
