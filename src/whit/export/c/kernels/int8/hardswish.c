/* x * min(max(x + 3, 0), 6) / 6, computed in units of 1/16 of the quantization step of x. */
static void hardswish(const uint8_t *in, int count, int zero_point, int32_t three, int32_t factor,
                      int64_t offset, int shift, uint8_t *out)
{
    for (int i = 0; i < count; i++) {
        const int32_t x = in[i] - zero_point;
        int32_t gate = 16 * x + three;
        gate = gate < 0 ? 0 : gate > 2 * three ? 2 * three : gate;
        out[i] = (uint8_t)requantize((int64_t)(x * gate) * factor + offset, shift);
    }
}
