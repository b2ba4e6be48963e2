/* Fully connected layer. weight[number made][number read]. */
static void linear$suffix(const uint8_t *in, int reads, const int8_t *weight, const $factor *factor,
                   const $offset *offset, int32_t step, int shift, uint8_t *out, int makes)
{
    for (int o = 0; o < makes; o++, weight += reads) {
        int32_t sum = 0;
        for (int i = 0; i < reads; i++)
            sum += in[i] * weight[i];
        out[o] = settle((int64_t)sum * factor[o] + (int64_t)offset[o] * step, shift);
    }
}
