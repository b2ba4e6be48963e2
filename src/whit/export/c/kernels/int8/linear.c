/* Fully connected layer. weight[output][input]. */
static void linear$suffix(const uint8_t *in, int inputs, const int8_t *weight,
                   const $factor *factor, const $offset *offset, int32_t offset_scale, int shift,
                   uint8_t *out, int outputs)
{
    for (int o = 0; o < outputs; o++, weight += inputs) {
        int32_t sum = 0;
        for (int i = 0; i < inputs; i++)
            sum += in[i] * weight[i];
        out[o] = requantize((int64_t)sum * factor[o] + (int64_t)offset[o] * offset_scale, shift);
    }
}
