/* x * min(max(x + 3, 0), 6) / 6, with x + 3 and 3 in sixteenths of a level of x. */
static void hardswish(const uint8_t *in, int count, int zero, int32_t three, int32_t factor,
                      int64_t offset, int shift, uint8_t *out)
{
    for (int i = 0; i < count; i++) {
        const int32_t x = in[i] - zero;
        int32_t gate = 16 * x + three;
        gate = gate < 0 ? 0 : gate > 2 * three ? 2 * three : gate;
        out[i] = (uint8_t)settle((int64_t)(x * gate) * factor + offset, shift);
    }
}
