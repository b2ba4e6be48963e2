/* The last fully connected layer, with logits as output. weight[output][input]. */
static void linear_logits$suffix(const uint8_t *in, int inputs, const int8_t *weight,
                          const $factor *factor, const $offset *offset, int32_t offset_scale,
                          int shift, int32_t *out, int outputs)
{
    for (int o = 0; o < outputs; o++, weight += inputs) {
        int32_t sum = 0;
        for (int i = 0; i < inputs; i++)
            sum += in[i] * weight[i];
        out[o] = logit_of((int64_t)sum * factor[o] + (int64_t)offset[o] * offset_scale, shift);
    }
}
